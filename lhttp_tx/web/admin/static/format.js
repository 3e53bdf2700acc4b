// Formats numbers and times.

const INTEGER = new Intl.NumberFormat("en");
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

/** Return a whole number with separators. */
export function count(value) {
  return INTEGER.format(Math.round(value));
}

/** Return a number in at most five characters, such as 12.3k. */
export function short(value) {
  const size = Math.abs(value);
  if (size >= 999_500) return `${trim(value / 1e6)}M`;
  if (size >= 9_999.5) return `${trim(value / 1e3)}k`;
  if (size >= 100 || Number.isInteger(value)) return INTEGER.format(Math.round(value));
  return trim(value);
}

function trim(value) {
  return Number(value.toPrecision(3)).toString();
}

/** Return a number of bytes with a unit. */
export function bytes(value) {
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit ? trim(value) : count(value)} ${UNITS[unit]}`;
}

/** Return bytes a second with a decimal unit, so that round numbers stay round. */
export function speed(value) {
  if (value >= 1e6) return `${trim(value / 1e6)} MB/s`;
  return value >= 1e3 ? `${trim(value / 1e3)} kB/s` : `${trim(value)} B/s`;
}

/** Return seconds as a short time, such as 1.5 ms. */
export function seconds(value) {
  if (value >= 100) return `${count(value)} s`;
  if (value >= 1) return `${trim(value)} s`;
  return value >= 0.001 ? `${trim(value * 1e3)} ms` : `${trim(value * 1e6)} µs`;
}

/** Return how long ago a time, in seconds since 1970, is, in its two largest units. */
export function since(time, now = Date.now() / 1000) {
  return span(now - time);
}

/** Return a number of seconds in its two largest units, such as 9 min 54 s. */
export function span(value) {
  let left = Math.max(0, Math.round(value));
  const told = [];
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]]) {
    if (left >= size || (unit === "s" && !told.length)) told.push(`${Math.floor(left / size)} ${unit}`);
    left %= size;
  }
  return told.slice(0, 2).join(" ");
}

/** Return the time of day, with milliseconds if asked for. */
export function clock(time, fine = false) {
  const date = new Date(time * 1000);
  const told = [date.getHours(), date.getMinutes(), date.getSeconds()].map((part) => String(part).padStart(2, "0"));
  return told.join(":") + (fine ? `.${String(date.getMilliseconds()).padStart(3, "0")}` : "");
}

/** Return a date and a time in the operator's time zone. */
export function moment(time) {
  const date = new Date(time * 1000);
  return Number.isNaN(date.getTime()) ? String(time) : date.toLocaleString("sv-SE");
}

/** Return a number with a noun, in singular or plural. */
export function counted(value, noun, several = `${noun}s`) {
  return `${count(value)} ${value === 1 ? noun : several}`;
}
