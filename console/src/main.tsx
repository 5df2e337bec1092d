// Starts the console.
import { render } from "preact";
import { App } from "./app";
import { startRouter } from "./lib/router";
import { start } from "./session";

startRouter();
start();
const root = document.getElementById("app");
if (root) render(<App />, root);
