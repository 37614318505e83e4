// Figures that stand beside each other: `say` sets their texts, in the order of their names.

import { h, say } from "./dom.js";

export function figuresOf(names) {
  const values = names.map(() => h("dd", null, "–"));
  return {
    element: h(
      "dl",
      { class: "figures" },
      names.map((name, at) => h("div", null, h("dt", null, name), values[at])),
    ),
    say: (texts) => texts.forEach((text, at) => say(values[at], text)),
  };
}
