// Elements made in code: texts are always texts, so that no name of an agent, model or tenant becomes markup.

const SVG = "http://www.w3.org/2000/svg";

// An element. Attributes whose value is null, undefined or false are left out; `on…` are listeners. Children may be
// nodes, texts, numbers, lists of these, or null.
export function h(tag, attributes, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

// The same for a part of a picture.
export function s(tag, attributes, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) set(element, name, value);
  append(element, children);
  return element;
}

// Set an attribute, unless it has that value already.
export function set(element, name, value) {
  if (name.startsWith("on")) {
    element.addEventListener(name.slice(2), value);
  } else if (value === null || value === undefined || value === false) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else {
    const text = value === true ? "" : String(value);
    if (element.getAttribute(name) !== text) element.setAttribute(name, text);
  }
}

// Set the text of an element, unless it has that text already.
export function say(element, text) {
  const told = String(text);
  if (element.textContent !== told) element.textContent = told;
}

function append(element, children) {
  for (const child of children) {
    if (Array.isArray(child)) append(element, child);
    else if (child !== null && child !== undefined && child !== false) element.append(child);
  }
}

// Put `children` in place of what is in `element`.
export function fill(element, ...children) {
  element.replaceChildren();
  append(element, children);
  return element;
}

// Keep one child of `parent` for each of `items`, in their order. A child is made once by `make(item)`, and brought up to
// date by `update(child, item)`; so focus, selection and scrolling stay.
export function keyed(parent, items, key, make, update) {
  const known = (parent.keyed ??= new Map());
  const wanted = new Set(items.map(key));
  for (const [name, child] of known) {
    if (wanted.has(name)) continue;
    known.delete(name);
    child.remove();
  }
  let at = parent.firstChild;
  for (const item of items) {
    const name = key(item);
    let child = known.get(name);
    if (!child) known.set(name, (child = make(item)));
    update(child, item);
    if (child === at) at = at.nextSibling;
    else parent.insertBefore(child, at);
  }
}

// Call `draw` at most once for each frame of the screen. `ask()` wants it drawn; `stop()` ends that.
export function onFrame(draw) {
  let asked = 0;
  let stopped = false;
  return {
    ask() {
      if (!asked && !stopped) {
        asked = requestAnimationFrame(() => {
          asked = 0;
          if (!stopped) draw();
        });
      }
    },
    stop() {
      stopped = true;
      cancelAnimationFrame(asked);
    },
  };
}
