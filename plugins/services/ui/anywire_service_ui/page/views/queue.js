import { h } from "../dom.js";

export function mount(element) {
  element.append(h("h1", null, "Queue"));
}
