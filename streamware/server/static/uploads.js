// Brings files to the server by tus (https://tus.io/protocols/resumable-upload), so that what breaks off goes on.
// Without this file the form does it, in one request and without progress.
"use strict";

(() => {
  const form = document.getElementById("upload");
  if (!form || typeof tus === "undefined" || !tus.isSupported) return;

  const endpoint = new URL(form.dataset.endpoint, location.href).href;
  const input = document.getElementById("choose");
  const list = document.getElementById("uploads");
  const said = document.getElementById("said");
  const storage = tus.defaultOptions.urlStorage;
  const AT_ONCE = 3;
  const RETRIES = [0, 1000, 2000, 4000, 8000, 15000]; // milliseconds
  const REMEMBERED = 20; // unfinished uploads that are looked up when the page is opened

  const items = new Set(); // what is in the list, first chosen first
  const batch = { files: 0, stored: 0, failed: 0, quarter: 0 }; // since nothing was going on

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

  const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
  const say = (text) => {
    if (said.textContent !== text) said.textContent = text;
  };

  function reason(error) {
    const answer = error?.originalResponse;
    if (!answer) return "The connection was lost.";
    try {
      const { title, detail } = JSON.parse(answer.getBody());
      if (title) return detail ? `${title} ${detail}` : title;
    } catch {
      // a proxy's own answer is no JSON
    }
    return `The server answered with ${answer.getStatus()}.`;
  }

  // --- one line of the list ---

  function element(name, attributes = {}, ...inside) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (value !== undefined) made.setAttribute(key, value);
    }
    made.append(...inside);
    return made;
  }

  class Item {
    constructor(name, total, file = null) {
      this.name = name;
      this.total = total;
      this.file = file;
      this.sent = 0;
      this.upload = null;
      this.fingerprint = null;
      this.bar = element("progress", { max: Math.max(total, 1), value: 0, "aria-label": name });
      this.text = element("span", { class: "state" });
      this.first = element("button", { type: "button", class: "quiet" });
      this.second = element("button", { type: "button", class: "quiet" });
      this.first.addEventListener("click", () => this.press());
      this.second.addEventListener("click", () => this.leave());
      const buttons = element("span", { class: "buttons" }, this.first, this.second);
      this.line = element("li", {}, element("bdi", {}, name), this.bar, this.text, buttons);
      items.add(this);
      list.append(this.line);
    }

    show(state, text = "") {
      this.state = state;
      this.line.dataset.state = state;
      this.bar.value = this.total ? this.sent : Number(state === "stored");
      const [first, second] = {
        waiting: ["", "Cancel"],
        running: ["Pause", "Cancel"],
        paused: ["Resume", "Cancel"],
        offline: ["", "Cancel"],
        failed: ["Try again", "Cancel"],
        left: ["", "Forget"],
      }[state];
      for (const [button, label] of [
        [this.first, first],
        [this.second, second],
      ]) {
        button.hidden = !label;
        button.textContent = label;
        button.setAttribute("aria-label", `${label} ${this.name}`);
      }
      this.text.textContent = text || this.progress();
    }

    progress() {
      const part = this.total ? Math.floor((100 * this.sent) / this.total) : 0;
      const far = `${part} % · ${size(this.sent)} of ${size(this.total)}`;
      return { waiting: "Waiting", paused: `Paused at ${far}` }[this.state] ?? far;
    }

    press() {
      if (this.state === "running") {
        this.upload.abort();
        this.show("paused");
        say(`${this.name} is paused.`);
      } else {
        this.show("waiting");
      }
      next();
    }

    leave() {
      const given = this.upload?.url ?? this.url;
      const ended = this.upload ? this.upload.abort(true) : given ? tus.Upload.terminate(given) : Promise.resolve();
      ended.catch(() => {}); // the server ends what nobody goes on with by itself
      if (this.key) storage.removeUpload(this.key);
      this.remove();
      say(`${this.name} was cancelled.`);
      if (["waiting", "running", "paused", "offline", "failed"].includes(this.state)) batch.files -= 1;
      next();
      input.focus();
    }

    remove() {
      items.delete(this);
      this.line.remove();
    }

    // Begin, or go on where the server says that it stands.
    async start() {
      this.show("running");
      this.upload ??= await this.prepare();
      if (this.state === "running" && items.has(this)) this.upload.start();
    }

    async prepare() {
      const options = {
        endpoint,
        retryDelays: RETRIES,
        metadata: { filename: this.file.name, ...(this.file.type && { filetype: this.file.type }) },
        removeFingerprintOnSuccess: true,
        httpStack: new Stack(),
        onProgress: (sent) => {
          this.sent = sent;
          if (this.state === "running") this.show("running");
          tell();
        },
        onSuccess: () => this.stored(),
        onError: (error) => this.broke(error),
      };
      this.fingerprint = await tus.defaultOptions.fingerprint(this.file, options);
      const twin = [...items].some((other) => other !== this && other.fingerprint === this.fingerprint);
      options.storeFingerprintForResuming = !twin;
      const upload = new tus.Upload(this.file, options);
      if (!twin) {
        const before = await upload.findPreviousUploads();
        before.sort((a, b) => new Date(b.creationTime) - new Date(a.creationTime));
        if (before.length) upload.resumeFromPreviousUpload(before[0]);
        for (const other of [...items]) {
          if (other.state === "left" && before.some((one) => one.urlStorageKey === other.key)) other.remove();
        }
      }
      return upload;
    }

    stored() {
      this.remove();
      batch.stored += 1;
      fresh();
      next();
      tell();
    }

    broke(error) {
      if (!items.has(this) || this.state === "paused") return;
      // 409: browsers themselves send a request again whose connection was reset, and then it does not fit any more.
      const status = error?.originalResponse?.getStatus() ?? 0;
      const passing = status < 400 || status >= 500 || status === 409 || status === 423;
      if (passing && !navigator.onLine) {
        this.show("offline", `No connection. It goes on from ${size(this.sent)} as soon as there is one.`);
        say(`${this.name} waits for the connection.`);
      } else {
        this.show("failed", reason(error));
        say(`${this.name} failed: ${reason(error)}`);
      }
      next();
    }
  }

  // A proxy may have this server below a prefix of its own, of which the server knows nothing: what the Location is
  // good for is the last part of it.
  class Stack extends tus.DefaultHttpStack {
    createRequest(method, url) {
      const request = super.createRequest(method, url);
      const send = request.send.bind(request);
      request.send = async (body) => {
        const answer = await send(body);
        const header = answer.getHeader.bind(answer);
        answer.getHeader = (name) => {
          const value = header(name);
          if (name !== "Location" || !value) return value;
          return `${endpoint}/${value.slice(value.lastIndexOf("/") + 1)}`;
        };
        return answer;
      };
      return request;
    }
  }

  // --- all of them ---

  const going = () => [...items].filter((item) => item.state === "running");
  const pending = () => [...items].filter((item) => item.file && item.state !== "failed");

  function next() {
    for (const item of items) {
      if (going().length >= AT_ONCE) break;
      if (item.state === "waiting") item.start();
    }
    tell();
  }

  // Said aloud at each quarter of the way, and not at every piece.
  function tell() {
    const left = pending();
    if (!left.length) {
      if (batch.stored) say(`${plural(batch.stored, "file")} stored.`);
      if (!items.size || ![...items].some((item) => item.file)) {
        Object.assign(batch, { files: 0, stored: 0, quarter: 0 });
      }
      return;
    }
    const total = left.reduce((sum, item) => sum + item.total, 0);
    const sent = left.reduce((sum, item) => sum + item.sent, 0);
    const quarter = total ? Math.floor((4 * sent) / total) : 0;
    if (quarter === batch.quarter || !going().length) return;
    batch.quarter = quarter;
    const done = batch.stored ? `${batch.stored} of ${plural(batch.files, "file")} stored. ` : "";
    say(`${done}${quarter * 25} % has arrived.`);
  }

  function take(files) {
    if (!files.length) return;
    for (const file of files) {
      new Item(file.name, file.size, file).show("waiting");
    }
    batch.files += files.length;
    batch.quarter = 0;
    say(`Uploading ${plural(files.length, "file")}.`);
    next();
  }

  // The rows of what is new come from the server as it shows them, so they are made in one place only.
  let asked = false;
  let again = false;

  async function fresh() {
    again = asked;
    if (asked) return;
    asked = true;
    try {
      const here = new URL(location.href);
      for (const key of ["new", "q", "sort", "order"]) here.searchParams.delete(key);
      const answer = await fetch(here, { headers: { Accept: "text/html" } });
      if (!answer.ok) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const known = new Set([...document.querySelectorAll("#pick tbody input")].map((box) => box.value));
      const rows = [...page.querySelectorAll("#pick tbody tr")].filter((tr) => !known.has(tr.querySelector("input").value));
      document.dispatchEvent(new CustomEvent("streamware:rows", { detail: rows.map((tr) => document.adoptNode(tr)) }));
      for (const tr of rows) tr.classList.add("new");
      document.getElementById("summary").textContent = page.getElementById("summary").textContent;
    } catch {
      say(`${said.textContent} Reload the page to see them.`);
    } finally {
      asked = false;
      if (again) fresh();
    }
  }

  // --- what an earlier visit has left unfinished ---

  async function recall() {
    const found = await storage.findAllUploads();
    const ours = found.filter((one) => one.uploadUrl?.startsWith(`${endpoint}/`)).slice(-REMEMBERED);
    for (const one of ours) {
      const answer = await fetch(one.uploadUrl, { method: "HEAD", headers: { "Tus-Resumable": "1.0.0" } }).catch(() => null);
      const offset = Number(answer?.headers.get("Upload-Offset"));
      if (answer && !answer.ok) storage.removeUpload(one.urlStorageKey);
      if (!answer?.ok || [...items].some((item) => item.upload?.url === one.uploadUrl)) continue;
      const item = new Item(one.metadata?.filename ?? "upload", one.size ?? 0);
      Object.assign(item, { url: one.uploadUrl, key: one.urlStorageKey, sent: offset });
      const part = one.size ? Math.floor((100 * offset) / one.size) : 0;
      item.show("left", `${part} % of ${size(one.size)} is here. Choose the same file again and it goes on.`);
    }
  }

  // --- ways in ---

  form.classList.add("live");
  for (const id of ["drop-hint", "resumes"]) document.getElementById(id).hidden = false;
  document.getElementById("send").hidden = true;
  input.required = false;
  input.addEventListener("change", () => {
    take([...input.files]);
    input.value = ""; // or the same file could not be chosen again
  });
  form.addEventListener("submit", (event) => event.preventDefault());

  let inside = 0; // elements that a drag is over
  const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
  const over = (count) => {
    inside = Math.max(0, count);
    form.classList.toggle("over", inside > 0);
  };
  document.addEventListener("dragenter", (event) => holdsFiles(event) && over(inside + 1));
  document.addEventListener("dragleave", (event) => holdsFiles(event) && over(inside - 1));
  document.addEventListener("dragover", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
  });
  document.addEventListener("drop", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    over(0);
    const entries = [...event.dataTransfer.items].filter((item) => item.kind === "file");
    const files = entries.filter((item) => !item.webkitGetAsEntry?.()?.isDirectory).map((item) => item.getAsFile());
    take(files);
    if (files.length < entries.length) say("Folders cannot be uploaded; drop the files that are in them.");
  });

  window.addEventListener("online", () => {
    for (const item of items) if (item.state === "offline") item.show("waiting");
    next();
  });

  recall().then(() => form.setAttribute("data-ready", ""));
})();
