// How a task is, in a word and its mood.

export function placeOf(task) {
  if (task.place !== "ended")
    return [
      task.place === "running" && task.streaming ? "streaming" : task.place,
      { running: "busy", held: "warn" }[task.place],
    ];
  return task.error ? [task.error, "bad"] : ["answered", "good"];
}
