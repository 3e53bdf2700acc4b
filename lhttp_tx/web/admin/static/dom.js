// Makes elements. Text becomes text nodes, never HTML, because strangers choose names of users and channels.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  add(element, children);
  return element;
}

/** Append children: nodes, texts, or arrays of them; null and false are skipped. */
export function add(element, children) {
  for (const child of [children].flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
}

/** Return an element. An attribute whose value is a function is a listener for the event with its name. */
export function el(name, attributes, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** Return an element of SVG. */
export function svg(name, attributes, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

/** Replace the children of an element. */
export function show(element, ...children) {
  element.replaceChildren();
  add(element, children);
}

/** Return an element for a name that a stranger chose. Its writing direction does not affect the text around it. */
export function name(text, attributes) {
  return el("bdi", { class: "name", title: text, ...attributes }, text);
}

/** Return a link to a view of this page. */
export function link(parts, text, attributes) {
  return el("a", { href: address(...parts), ...attributes }, name(text));
}

/** Return the address of a view: its parts, each escaped. */
export function address(...parts) {
  return "#/" + parts.map(encodeURIComponent).join("/");
}

/** Return a section with a heading. */
export function panel(title, ...children) {
  const { actions, ...attributes } = children[0] instanceof Object && !(children[0] instanceof Node) &&
    !Array.isArray(children[0]) ? children.shift() : {};
  return el(
    "section",
    { ...attributes, class: `panel ${attributes.class ?? ""}` },
    el("header", {}, el("h2", {}, title), actions ?? null),
    ...children,
  );
}

/** Return a line that says why something is not shown. */
export function note(text, attributes) {
  return el("p", { ...attributes, class: `note ${attributes?.class ?? ""}` }, text);
}
