// The tus project's server for Node, on its store for a folder: BENCH_STORE is the folder, BENCH_MODULES where npm put it.
// The rule of this file: as its documentation shows.
import path from "node:path";
import { createRequire } from "node:module";

const { BENCH_MODULES, BENCH_STORE } = process.env;
const require = createRequire(path.join(BENCH_MODULES, "node_modules", "x"));
const load = (name) => import(require.resolve(name));
const { Server } = await load("@tus/server");
const { FileStore } = await load("@tus/file-store");
const server = new Server({ path: "/files", datastore: new FileStore({ directory: BENCH_STORE }) });
server.listen({ host: "127.0.0.1", port: Number(process.argv[2]) });
