// The views of the page, in the order in which they stand in its navigation. `role` is the least that one needs to see
// it. A module is loaded when its view is opened, and exports
//
//   mount(element, api, parts): show the view in the empty `element`; `parts` is what stands behind its name in the
//   address (`#/tasks/ID` → ["ID"]). Returns a function that ends it, or nothing.
//
// `api` is `api.js`'s Api, with these besides:
//   store            what is known of the fleet (`store.js`)
//   go(path)         open another view: `api.go("tasks/" + id)`
//   announce(text)   say something to a screen reader; used sparingly
//   fail(error)      show an error at the top of the view, until the next one is opened

export const VIEWS = [
  { name: "fleet", title: "Fleet", role: "observe", load: () => import("./views/fleet.js") },
  { name: "queue", title: "Queue", role: "use", load: () => import("./views/queue.js") },
  { name: "tasks", title: "Tasks", role: "use", load: () => import("./views/tasks.js") },
  { name: "playground", title: "Playground", role: "use", load: () => import("./views/playground.js") },
  { name: "models", title: "Models", role: "use", load: () => import("./views/models.js") },
  { name: "deliberations", title: "Deliberations", role: "use", load: () => import("./views/deliberations.js") },
  { name: "reports", title: "Reports", role: "observe", load: () => import("./views/reports.js") },
  { name: "keys", title: "Keys", role: "use", load: () => import("./views/keys.js") },
];
