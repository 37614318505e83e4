// The views of the page, in the order in which they stand in its navigation. `role` is the least that one needs to see
// it. All modules are loaded with the page, so that its parts are of one version, and a view opens also while the server is
// away. Each exports
//
//   mount(element, api, parts): show the view in the empty `element`; `parts` is what stands behind its name in the
//   address (`#/tasks/ID` → ["ID"]). Returns a function that ends it, or nothing.
//
// `api` is `api.js`'s Api, with these besides:
//   store            what is known of the fleet (`store.js`)
//   go(path)         open another view: `api.go("tasks/" + id)`
//   announce(text)   say something to a screen reader; used sparingly
//   fail(error)      show an error at the top of the view, until the next one is opened

import * as deliberations from "./views/deliberations.js";
import * as fleet from "./views/fleet.js";
import * as keys from "./views/keys.js";
import * as models from "./views/models.js";
import * as playground from "./views/playground.js";
import * as queue from "./views/queue.js";
import * as reports from "./views/reports.js";
import * as tasks from "./views/tasks.js";

export const VIEWS = [
  { name: "fleet", title: "Fleet", role: "observe", mount: fleet.mount },
  { name: "queue", title: "Queue", role: "use", mount: queue.mount },
  { name: "tasks", title: "Tasks", role: "use", mount: tasks.mount },
  { name: "playground", title: "Playground", role: "use", mount: playground.mount },
  { name: "models", title: "Models", role: "use", mount: models.mount },
  { name: "deliberations", title: "Deliberations", role: "use", mount: deliberations.mount },
  { name: "reports", title: "Reports", role: "observe", mount: reports.mount },
  { name: "keys", title: "Keys", role: "use", mount: keys.mount },
];
