// What the page can do beyond its plain form: live totals, keys, filter and sorting in place.
// Without this file everything still works, a click at a time.
"use strict";

(() => {
  const form = document.getElementById("pick");
  if (!form) return;

  const { base, whole } = form.dataset;
  const single = form.dataset.pages === "1";
  const body = form.querySelector("tbody");
  const all = document.getElementById("all");
  const clear = document.getElementById("clear");
  const none = document.getElementById("none");
  const output = document.getElementById("total");
  const hint = output.textContent;
  const filter = document.querySelector("#filter input[type=search]");
  const downloads = [...form.querySelectorAll(".buttons button")];
  const LONGEST_URL = 6000; // characters; some proxies take no more than 8,192 bytes

  const read = (tr) => {
    const box = tr.querySelector("input");
    const link = tr.querySelector(".n a");
    return {
      tr,
      box,
      link,
      name: link.textContent,
      folder: link.classList.contains("folder"),
      size: Number(tr.dataset.size),
      time: Number(tr.dataset.time),
      total: null, // of a folder: a promise of {files, bytes, complete}, once it was chosen
    };
  };
  const rows = [...body.rows].map(read);
  const rowOf = new Map(rows.map((row) => [row.tr, row]));
  const visible = () => [...body.rows].map((tr) => rowOf.get(tr)).filter((row) => !row.tr.hidden && !row.box.disabled);
  const chosen = () => rows.filter((row) => row.box.checked);

  // --- words ---

  function size(count) {
    if (count < 1000) return `${count} B`;
    let value = count;
    let unit = 0;
    while (value >= 999.5) {
      value /= 1000;
      unit += 1;
    }
    return `${value.toFixed(value >= 99.95 ? 0 : 1)} ${"BkMGTPE"[unit]}B`;
  }

  const number = (count) => count.toLocaleString("en");
  const plural = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;
  window.streamware = { size, plural }; // for the scripts that follow

  // --- what a folder comes to, asked of the server, two at a time ---

  const waiting = [];
  let asking = 0;

  function next() {
    while (asking < 2 && waiting.length) {
      const { path, done } = waiting.shift();
      asking += 1;
      fetch(`${base}totals/${path}`)
        .then((answer) => (answer.ok ? answer.json() : null))
        .catch(() => null)
        .then((total) => {
          asking -= 1;
          done(total);
          next();
        });
    }
  }

  function measure(row) {
    row.total ??= new Promise((done) => {
      waiting.push({ path: row.box.value.slice("/tree/".length).split("?")[0], done });
      next();
    }).then((total) => {
      if (total) {
        const cell = row.tr.querySelector(".s");
        cell.textContent = total.complete ? size(total.bytes) : "many";
        cell.title = `${plural(total.files, "file")}, ${plural(total.bytes, "byte")}`;
      } else {
        row.total = null; // so that it is asked again next time
      }
      return total;
    });
    return row.total;
  }

  // --- the total of what is chosen ---

  let turn = 0;

  function say(text, exact) {
    output.replaceChildren();
    const strong = document.createElement("strong");
    strong.textContent = text[0];
    output.append(strong, text.slice(1).map((part) => ` · ${part}`).join(""));
    output.title = exact ?? "";
  }

  async function tell() {
    const mine = ++turn;
    output.ariaBusy = "true"; // what it says is about to change
    const picked = chosen();
    const hidden = picked.filter((row) => row.tr.hidden).length;
    for (const button of downloads) button.disabled = !picked.length;
    clear.hidden = !picked.length;
    const shown = visible();
    const ticked = shown.filter((row) => row.box.checked).length;
    all.checked = shown.length > 0 && ticked === shown.length;
    all.indeterminate = ticked > 0 && !all.checked;
    if (!picked.length) {
      output.textContent = hint;
      output.title = "";
      output.ariaBusy = "false";
      return;
    }
    const head = [`${number(picked.length)} selected`];
    if (hidden) head[0] += ` (${number(hidden)} not shown)`;
    const folders = picked.filter((row) => row.folder);
    let files = picked.length - folders.length;
    let bytes = picked.reduce((sum, row) => sum + row.size, 0);
    const slow = setTimeout(() => mine === turn && say([...head, "measuring…"]), folders.length ? 120 : 0);
    const totals = await Promise.all(folders.map(measure));
    clearTimeout(slow);
    if (mine !== turn) return;
    let complete = true;
    let known = true;
    for (const total of totals) {
      known &&= total !== null;
      if (!total) continue;
      files += total.files;
      bytes += total.bytes;
      complete &&= total.complete;
    }
    const more = complete && known ? "" : "more than ";
    say([...head, `${more}${plural(files, "file")}`, `${more}${size(bytes)}`], plural(bytes, "byte"));
    if (!complete) output.append(" · too many for one download");
    else if (!known) output.append(" · a folder could not be measured");
    output.ariaBusy = "false";
  }

  // --- choosing ---

  let anchor = null;

  function setRange(from, to, state) {
    const shown = visible();
    const [low, high] = [shown.indexOf(from), shown.indexOf(to)].sort((a, b) => a - b);
    if (low < 0) return;
    for (const row of shown.slice(low, high + 1)) row.box.checked = state;
  }

  function setAll(state) {
    for (const row of visible()) row.box.checked = state;
    tell();
  }

  function current(row) {
    for (const other of body.querySelectorAll("input[tabindex='0']")) other.tabIndex = -1;
    row.box.tabIndex = 0;
  }

  all.hidden = false;
  all.addEventListener("change", () => setAll(all.checked));
  clear.addEventListener("click", () => {
    for (const row of rows) row.box.checked = false;
    tell();
    all.focus();
  });

  let shift = false;
  body.addEventListener("mousedown", (event) => {
    shift = event.shiftKey;
    if (event.shiftKey) event.preventDefault(); // or the text in between would be marked
  });
  body.addEventListener("click", (event) => {
    const row = rowOf.get(event.target.closest("tr"));
    if (!row || event.target.closest("a, label") || !getSelection().isCollapsed) return;
    row.box.focus({ preventScroll: true });
    row.box.click();
  });
  body.addEventListener("change", (event) => {
    const row = rowOf.get(event.target.closest("tr"));
    if (shift && anchor && anchor !== row) setRange(anchor, row, row.box.checked);
    shift = false;
    anchor = row;
    current(row);
    tell();
  });
  body.addEventListener("focusin", (event) => {
    const row = rowOf.get(event.target.closest("tr"));
    if (row && event.target === row.box) current(row);
  });

  // --- keys ---

  const STEPS = { ArrowDown: 1, ArrowUp: -1, PageDown: 15, PageUp: -15, Home: -Infinity, End: Infinity };

  function untab(row) {
    row.box.tabIndex = -1;
    row.link.tabIndex = -1;
  }

  rows.forEach(untab);
  if (visible().length) visible()[0].box.tabIndex = 0;

  body.addEventListener("keydown", (event) => {
    const row = rowOf.get(event.target.closest("tr"));
    if (!row || event.altKey) return;
    shift = event.shiftKey;
    if (event.key === "Enter") {
      event.preventDefault();
      row.link.click();
    } else if (event.key in STEPS && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      const shown = visible();
      const at = shown.indexOf(row) + STEPS[event.key];
      const target = shown[Math.min(Math.max(at, 0), shown.length - 1)];
      if (event.shiftKey) {
        row.box.checked = true;
        setRange(row, target, true);
        anchor = target;
        tell();
      }
      target.box.focus();
      target.tr.scrollIntoView({ block: "nearest" });
    }
  });

  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("input[type=search], input[type=text]");
    if (event.key === "Escape") {
      if (event.target === filter && filter.value) filter.value = "";
      else if (!typing) for (const row of rows) row.box.checked = false;
      sift();
      tell();
    } else if (typing) {
      if (event.target === filter && event.key === "ArrowDown" && visible().length) {
        event.preventDefault();
        visible()[0].box.focus();
      }
    } else if (event.key === "/" && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      filter?.focus();
      filter?.select();
    } else if (event.key.toLowerCase() === "a" && (event.ctrlKey || event.metaKey) && !event.shiftKey) {
      event.preventDefault();
      setAll(true);
    }
  });

  // --- filter and sorting in place; a folder of several pages leaves both to the server ---

  function sift() {
    const wanted = filter?.value.toLowerCase() ?? "";
    for (const row of rows) row.tr.hidden = !row.name.toLowerCase().includes(wanted);
    const shown = visible();
    if (rows.length) {
      none.hidden = rows.some((row) => !row.tr.hidden);
      if (filter) none.textContent = "Nothing here has that in its name.";
    }
    if (shown.length) current(shown[0]);
  }

  filter?.addEventListener("input", () => {
    sift();
    tell();
  });
  if (filter && single && !new URLSearchParams(location.search).get("q")) {
    document.getElementById("filter-go").hidden = true;
    filter.form.addEventListener("submit", (event) => event.preventDefault());
  }

  const words = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
  const ORDERS = {
    name: (a, b) => words.compare(a.name, b.name),
    size: (a, b) => a.size - b.size,
    time: (a, b) => a.time - b.time,
  };

  function sort(head) {
    const { key } = head.dataset;
    const was = head.getAttribute("aria-sort");
    const down = was ? was === "ascending" : key !== "name";
    const sign = down ? -1 : 1;
    rows.sort((a, b) => b.folder - a.folder || sign * ORDERS[key](a, b) || ORDERS.name(a, b));
    body.append(...rows.map((row) => row.tr));
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const here = new URL(location.href);
    here.searchParams.set("sort", key);
    here.searchParams.set("order", down ? "desc" : "asc");
    history.replaceState(null, "", here);
  }

  if (single) {
    for (const head of form.querySelectorAll("th[data-key]")) {
      head.querySelector("a").addEventListener("click", (event) => {
        if (event.ctrlKey || event.metaKey || event.shiftKey) return;
        event.preventDefault();
        sort(head);
      });
    }
  }

  // --- times as they are here, not in Greenwich ---

  const clock = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

  function localize(inside) {
    for (const time of inside.querySelectorAll("time")) {
      if (!time.dateTime) continue;
      time.title = time.dateTime;
      time.textContent = clock.format(new Date(time.dateTime));
    }
  }

  localize(body);
  form.querySelector("th.t span").remove();

  // --- rows that come while the page is open; whoever brings them has them from the server ---

  document.addEventListener("streamware:rows", (event) => {
    for (const tr of [...event.detail].reverse()) {
      const row = read(tr);
      untab(row);
      localize(tr);
      rows.unshift(row);
      rowOf.set(tr, row);
      body.prepend(tr);
    }
    for (const part of form.querySelectorAll("table, .bar")) part.hidden = false;
    sift();
    tell();
  });

  // --- taking it: a GET can be resumed, so it is used wherever its URL is not too long ---

  form.addEventListener("submit", (event) => {
    if (event.submitter?.hasAttribute("formaction")) return; // it asks for something else
    form.method = "get";
    const length = [...new FormData(form)].reduce((sum, [, value]) => sum + 6 + encodeURIComponent(value).length, 0);
    if (length > LONGEST_URL) form.method = "post";
  });
  form.addEventListener("formdata", (event) => {
    if (!single || !whole || filter?.value || !rows.every((row) => row.box.checked)) return;
    event.formData.delete("path");
    event.formData.append("path", whole); // all of it: the folder itself says so in one line
  });

  window.addEventListener("pageshow", () => {
    sift();
    tell();
  });
  tell();
})();
