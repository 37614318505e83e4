// Reports of experiments: the records in the folders that the settings name, and one report or two beside each other.

import { fill, h, keyed, say, set } from "../dom.js";
import { actionButton, copyBox, moment, table } from "../form_parts.js";

const MOST = 2; // reports beside each other

export function mount(element, api, parts) {
  const own = new Reports(element, api, parts);
  return () => own.end();
}

class Reports {
  constructor(element, api, wanted) {
    this.api = api;
    this.ended = new AbortController();
    this.records = [];
    this.chosen = wanted.filter(Boolean).slice(0, MOST);
    this.fault = h("p", { class: "fault", role: "alert" });
    this.summary = h("p", { class: "hint" }, "loading …");
    this.list = table("Records of experiments", ["Show", "Experiment", "What it found", "#Arms", "#Blocks", "Written"]);
    this.again = actionButton(
      "Look again",
      () => this.read(),
      (error) => say(this.fault, error.message),
      { class: "quiet" },
    );
    this.frames = h("div", { class: "reports" });
    this.shown = new Map(); // by id, the section with its frame
    fill(
      element,
      h("h1", null, "Reports"),
      this.fault,
      h("div", { class: "row" }, this.summary, this.again),
      this.list.element,
      this.frames,
    );
    const look = () =>
      this.read().catch((error) => error.name !== "AbortError" && say(this.fault, error.message));
    this.unlisten = api.store.listen((event) => event.type === "page.behind" && look());
    look();
  }

  end() {
    this.unlisten();
    this.ended.abort();
  }

  async read() {
    const { data, folders } = await this.api.get("/v1/ui/records", { signal: this.ended.signal });
    say(this.fault, "");
    this.records = data;
    const none = folders
      ? "There is no record in the folders of services.ui.records."
      : "No folder is named: set services.ui.records to the folders in which your experiments' records are.";
    say(this.summary, data.length ? "Choose one report, or two to see them beside each other." : none);
    this.list.element.hidden = !data.length;
    this.chosen = this.chosen.filter((id) => data.some((each) => each.id === id && each.has_report));
    this.draw();
    this.show();
  }

  draw() {
    keyed(
      this.list.body,
      this.records,
      (each) => each.id,
      (each) => this.row(each),
      (element, each) => this.update(element, each),
    );
  }

  row(record) {
    const box = h("input", { type: "checkbox", onchange: () => this.choose(record.id, box.checked) });
    const parts = {
      box,
      name: h("strong"),
      folder: h("div", { class: "hint" }),
      question: h("div"),
      found: h("div"),
      cautions: h("ul", { class: "cautions" }),
      arms: h("td", { class: "number" }),
      blocks: h("td", { class: "number" }),
      changed: h("td"),
    };
    const element = h(
      "tr",
      null,
      h("td", null, box),
      h("th", { scope: "row", class: "words" }, parts.name, parts.folder),
      h("td", { class: "words" }, parts.question, parts.found, parts.cautions),
      parts.arms,
      parts.blocks,
      parts.changed,
    );
    element.parts = parts;
    return element;
  }

  update({ parts }, record) {
    set(parts.box, "aria-label", `Show the report of ${record.name}`);
    parts.box.checked = this.chosen.includes(record.id);
    parts.box.disabled = !record.has_report || (this.chosen.length >= MOST && !parts.box.checked);
    say(parts.name, record.name);
    say(parts.folder, record.folder + (record.sealed ? ", sealed" : ", not sealed"));
    say(parts.question, record.question);
    const none = record.has_report ? "" : " It has no report yet: anywire experiment report writes it.";
    say(parts.found, (record.headline || record.fault) + none);
    fill(
      parts.cautions,
      (record.cautions ?? []).map((each) => h("li", null, each)),
    );
    say(parts.arms, record.arms || "–");
    say(parts.blocks, record.blocks || "–");
    say(parts.changed, moment(record.changed));
  }

  choose(id, on) {
    this.chosen = on ? [...this.chosen, id].slice(-MOST) : this.chosen.filter((each) => each !== id);
    history.replaceState(null, "", `#/${["reports", ...this.chosen].map(encodeURIComponent).join("/")}`);
    this.draw();
    this.show();
  }

  // Keep a frame for each report that is chosen. One that is shown already stays where it is: a frame that
  // moves is loaded again.
  show() {
    const chosen = this.chosen.map((id) => this.records.find((each) => each.id === id));
    this.frames.classList.toggle("two", chosen.length === MOST);
    for (const [id, section] of this.shown) {
      if (this.chosen.includes(id)) continue;
      section.remove();
      this.shown.delete(id);
    }
    for (const each of chosen) {
      if (this.shown.has(each.id)) continue;
      this.shown.set(each.id, this.frame(each));
      this.frames.append(this.shown.get(each.id));
    }
    this.compared?.remove();
    if (chosen.length === MOST) {
      const folders = chosen.map((each) => quoted(each.folder)).join(" ");
      const box = copyBox(
        "A command that compares both records",
        `anywire experiment compare ${folders} --out both.html`,
      );
      this.compared = h(
        "div",
        { class: "compared" },
        h("p", { class: "hint" }, "Their figures in one table, in the folder of the records:"),
        box.element,
      );
      this.frames.after(this.compared);
    }
  }

  frame(record) {
    const fault = h("p", { class: "fault", role: "alert" });
    // A report is somebody else's page: in this frame no script runs, and it has no origin.
    const frame = h("iframe", { sandbox: "", referrerpolicy: "no-referrer", title: `Report of ${record.name}` });
    const section = h(
      "section",
      { "aria-label": `Report of ${record.name}` },
      h("h2", null, record.name, " ", h("span", { class: "hint" }, record.folder)),
      fault,
      frame,
    );
    this.load(record, frame).catch((error) => say(fault, error.message));
    return section;
  }

  // A frame can show no key: it loads from a path that counts once.
  async load(record, frame) {
    const path = `/v1/ui/records/${encodeURIComponent(record.id)}/report`;
    const told = await this.api.post(path, {}, { signal: this.ended.signal });
    if (!/^\/ui\/report\/[\w-]+$/.test(told.path)) throw new Error("the server names no path of a report");
    frame.src = this.api.base + told.path;
  }
}

// A folder as an argument of a command: one whose name begins with a dash is no option.
function quoted(folder) {
  const path = folder.startsWith("-") ? `./${folder}` : folder;
  return `'${path.replaceAll("'", "'\\''")}'`;
}
