// Node's archiver and yazl behind Node's own server: BENCH_LIBRARY says which, BENCH_MODULES where npm put them.
// The rule of this file: members are opened one after another, as both libraries' documentation shows.
import { once } from "node:events";
import { createReadStream, readFileSync } from "node:fs";
import http from "node:http";
import path from "node:path";
import { pathToFileURL } from "node:url";

const { BENCH_JOBS, BENCH_LIBRARY, BENCH_MODULES } = process.env;
const jobs = JSON.parse(readFileSync(BENCH_JOBS, "utf8"));
const load = (name) => import(pathToFileURL(path.join(BENCH_MODULES, "node_modules", name, "index.js")));
const agent = new http.Agent({ keepAlive: true });

function body(url) {
  return new Promise((resolve, reject) => {
    http.get(url, { agent }, (response) => {
      if (response.statusCode === 200) resolve(response);
      else reject(new Error(`${url} answered ${response.statusCode}`));
    }).on("error", reject);
  });
}

async function archiver(job, response) {
  const { ZipArchive } = await load("archiver");
  const archive = new ZipArchive(job.compress === "deflate" ? { zlib: { level: 6 } } : { store: true });
  archive.on("error", (error) => response.destroy(error));
  archive.pipe(response);
  for (const [name, , , modified] of job.members) {
    const content = job.local ? createReadStream(path.join(job.folder, name)) : await body(`${job.url}/${name}`);
    const done = once(archive, "entry");
    archive.append(content, { name, date: new Date(modified * 1000) });
    await done;
  }
  await archive.finalize();
}

async function yazl(job, response) {
  const { default: library } = await load("yazl");
  const archive = new library.ZipFile();
  archive.on("error", (error) => response.destroy(error));
  for (const [name, size, crc32, modified] of job.members) {
    const options = { compress: job.compress === "deflate", mtime: new Date(modified * 1000), size };
    if (crc32 !== null) options.crc32 = crc32;
    if (job.local) archive.addFile(path.join(job.folder, name), name, options);
    else archive.addReadStreamLazy(name, options, (give) => body(`${job.url}/${name}`).then((b) => give(null, b), give));
  }
  archive.end({}, (length) => {
    if (length >= 0) response.setHeader("Content-Length", length);
    archive.outputStream.pipe(response);
  });
}

const pack = { archiver, yazl }[BENCH_LIBRARY];
http
  .createServer((request, response) => {
    const job = jobs[path.basename(request.url, ".zip")];
    response.setHeader("Content-Type", "application/zip");
    pack(job, response).catch((error) => response.destroy(error));
  })
  .listen(Number(process.argv[2]), "127.0.0.1");
