// The exports of lhttp.mjs.
export * from "./lhttp.js";
