// Draws lines over time as SVG in the colours of the theme, and shows the values at the pointer or the arrow keys.

import { el, show, svg } from "./dom.js";
import { clock } from "./format.js";

const WIDTH = 320;
const HEIGHT = 110;
const TOP = 8;
const GRID = 3;

/** Return the smallest round number that is not below a value: 1, 2 or 5 times a power of ten. */
export function round(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((each) => each * power).find((each) => each >= value * 0.999999);
}

/**
 * A plot of one or more lines.
 *
 * lines: each with a name and the key of its values; write: returns a value as text. A missing value leaves a gap.
 */
export class Plot {
  constructor({ title, lines, write, hint }) {
    this.lines = lines;
    this.write = write;
    this.points = [];
    this.at = null;
    this.now = lines.map((line, index) => el("span", { class: `legend line-${index}` }, line.name, " "));
    this.values = this.now.map((legend) => legend.appendChild(el("b", {}, "–")));
    this.paths = lines.map((_, index) => svg("path", { class: `line line-${index}` }));
    this.grid = svg("g", { class: "grid" });
    this.cursor = svg("line", { class: "cursor", y1: 0, y2: HEIGHT, visibility: "hidden" });
    this.picture = svg(
      "svg",
      { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
      this.grid,
      this.paths,
      this.cursor,
    );
    this.top = el("span", { class: "top-value" });
    this.time = el("span", { class: "time" });
    const area = el("div", { class: "area", tabindex: "0", role: "img", "aria-label": title }, this.picture, this.top);
    area.addEventListener("pointermove", (event) => this._point(event, area));
    area.addEventListener("pointerleave", () => this._pick(null));
    area.addEventListener("blur", () => this._pick(null));
    area.addEventListener("keydown", (event) => this._move(event));
    this.area = area;
    this.title = title;
    this.element = el(
      "figure",
      { class: "plot", title: hint },
      el("figcaption", {}, el("span", {}, title), this.time),
      area,
      el("p", { class: "legends" }, this.now),
    );
  }

  /** Show points, the oldest first: each with a time, and a value for each line. */
  show(points, from, to) {
    this.points = points;
    this.from = from;
    this.to = Math.max(to, from + 1);
    const values = points.flatMap((point) => this.lines.map((line) => point[line.key] ?? 0));
    const most = round(Math.max(0, ...values));
    this.paths.forEach((path, index) => path.setAttribute("d", this._path(this.lines[index].key, most)));
    this.top.textContent = values.length ? this.write(most) : "";
    show(
      this.grid,
      Array.from({ length: GRID }, (_, index) => {
        const y = TOP + ((HEIGHT - TOP) * index) / GRID;
        return svg("line", { x1: 0, x2: WIDTH, y1: y, y2: y });
      }),
    );
    this._pick(this.at);
  }

  _x(time) {
    return ((time - this.from) / (this.to - this.from)) * WIDTH;
  }

  _path(key, most) {
    let path = "";
    let isDown = false;
    for (const point of this.points) {
      const value = point[key];
      if (value === undefined || value === null) {
        isDown = false;
        continue;
      }
      const y = HEIGHT - 1 - (value / most) * (HEIGHT - TOP - 1);
      path += `${isDown ? "L" : "M"}${this._x(point.time).toFixed(1)} ${y.toFixed(1)}`;
      if (!isDown) path += "h.01"; // so that a single point is visible
      isDown = true;
    }
    return path;
  }

  _point(event, area) {
    const box = area.getBoundingClientRect();
    const time = this.from + ((event.clientX - box.left) / box.width) * (this.to - this.from);
    const distances = this.points.map((point) => Math.abs(point.time - time));
    this._pick(distances.length ? this.points[distances.indexOf(Math.min(...distances))].time : null);
  }

  _move(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step === undefined || !this.points.length) return;
    event.preventDefault();
    const last = this.points.length - 1;
    const place = this.at === null ? last + (step < 0 ? 0 : 1) : this.points.findIndex(({ time }) => time === this.at);
    this._pick(this.points[Math.min(last, Math.max(0, place + step))].time);
  }

  _pick(time) {
    const point = this.points.find((each) => each.time === time) ?? this.points.at(-1);
    this.at = point?.time === time ? time : null;
    this.cursor.setAttribute("visibility", this.at === null ? "hidden" : "visible");
    if (this.at !== null) {
      this.cursor.setAttribute("x1", this._x(time));
      this.cursor.setAttribute("x2", this._x(time));
    }
    this.time.textContent = this.at === null ? "" : clock(this.at);
    const told = this.lines.map((line, index) => {
      const value = point?.[line.key];
      const text = value === undefined || value === null ? "–" : this.write(value);
      if (this.values[index].textContent !== text) this.values[index].textContent = text;
      return `${line.name} ${text}`;
    });
    this.area.setAttribute("aria-label", `${this.title}: ${told.join(", ")}${this.at === null ? "" : ` at ${clock(this.at)}`}`);
  }
}
