// Bundles the console into ../assets/console. The same sources give the same bytes.
//
// The file names in index.html contain the SHA-256 of the content, so that browsers may keep the files for ever.
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gunzipSync, gzipSync } from "node:zlib";
import { build } from "esbuild";

const source = new URL("src/", import.meta.url);
const target = new URL("../assets/console/", import.meta.url);

const { outputFiles } = await build({
  entryPoints: { app: fileURLToPath(new URL("main.tsx", source)), style: fileURLToPath(new URL("app.css", source)) },
  outdir: "out",
  bundle: true,
  minify: true,
  write: false,
  format: "iife",
  target: ["chrome111", "firefox114", "safari16.4"],
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "none",
  // Served as it is.
  external: ["icon.svg"],
  charset: "utf8",
  logLevel: "warning",
});

mkdirSync(target, { recursive: true });
let index = readFileSync(new URL("index.html", source), "utf8");
let total = 0;
for (const [name, extension] of [["app.js", ".js"], ["app.css", ".css"]]) {
  const { contents } = outputFiles.find(({ path }) => path.endsWith(extension));
  const hash = createHash("sha256").update(contents).digest("hex").slice(0, 16);
  index = index.replace(`"${name}"`, `"${name.replace(".", `-${hash}.`)}"`);
  total += writeCompressed(new URL(`${name}.gz`, target), contents);
}
writeFileSync(new URL("index.html", target), index);
writeFileSync(new URL("icon.svg", target), readFileSync(new URL("icon.svg", source)));
console.log(`${total} bytes compressed`);

/** Writes only what changed, because versions of zlib compress the same content to different bytes. */
function writeCompressed(file, contents) {
  let known;
  try {
    known = readFileSync(file);
    if (gunzipSync(known).equals(contents)) return known.length;
  } catch {
    // The file is absent or broken.
  }
  const compressed = gzipSync(contents, { level: 9 });
  writeFileSync(file, compressed);
  return compressed.length;
}
