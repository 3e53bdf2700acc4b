// What lhttp.mjs exports.
export * from "./lhttp.js";
