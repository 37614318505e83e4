// Where agents stand in the picture of the fleet: on ellipses around their orchestrator, neighbours of one host beside
// each other. Pure, and the same for the same ids, so that nothing jumps while agents work.

const MOST = 600;

// `{scale, labels, places: Map(id → {x, y, angle})}` in a picture of this size; `ids` in the order in which they stand.
export function placesOf(ids, width, height) {
  const shown = ids.slice(0, MOST);
  const [radius, spacing, labels] = sizeFor(shown.length, width);
  const margin = radius * 2 + (labels ? 34 : 8);
  const rings = ringsFor(
    shown.length,
    width / 2 - margin,
    height / 2 - margin,
    spacing,
    labels ? spacing * 0.75 : radius * 2.9,
  );
  const places = new Map();
  let next = 0;
  rings.forEach((ring, number) => {
    // Every second ring is turned by half a step: links to it pass between the agents of the ring before.
    const turn = number % 2 ? Math.PI / ring.count : 0;
    for (const angle of evenAngles(ring.rx, ring.ry, ring.count, turn)) {
      places.set(shown[next++], {
        x: width / 2 + ring.rx * Math.cos(angle),
        y: height / 2 + ring.ry * Math.sin(angle),
        angle,
      });
    }
  });
  return { radius, labels, places, left: ids.length - shown.length };
}

function sizeFor(count, width) {
  const narrow = width < 600;
  if (count <= (narrow ? 6 : 14)) return [20, narrow ? 78 : 100, true];
  if (count <= (narrow ? 14 : 32)) return [14, narrow ? 60 : 74, true];
  if (count <= 90) return [narrow ? 7 : 10, narrow ? 20 : 32, false];
  return [narrow ? 4.5 : 7, narrow ? 13 : 22, false];
}

// From the outermost ellipse inwards, as many as are needed; each takes its share.
function ringsFor(count, rx, ry, spacing, gap) {
  const rings = [];
  let room = 0;
  for (let number = 0; room < count && number < 12; number += 1) {
    const ring = { rx: Math.max(rx - number * gap, 30), ry: Math.max(ry - number * gap, 30) };
    ring.room = Math.max(3, Math.floor(lengthOf(ring.rx, ring.ry) / spacing));
    room += ring.room;
    rings.push(ring);
  }
  let left = count;
  let roomLeft = room;
  for (const ring of rings) {
    ring.count = Math.min(left, Math.max(1, Math.round((left * ring.room) / Math.max(1, roomLeft))));
    left -= ring.count;
    roomLeft -= ring.room;
  }
  if (left > 0) rings.at(-1).count += left;
  return rings.filter((ring) => ring.count > 0);
}

function lengthOf(rx, ry) {
  return Math.PI * (3 * (rx + ry) - Math.sqrt((3 * rx + ry) * (rx + 3 * ry)));
}

// Angles whose points lie at equal distances along the ellipse, the first one at the top.
function evenAngles(rx, ry, count, turn) {
  const steps = 720;
  const along = [0];
  let [x, y] = [0, -ry];
  for (let step = 1; step <= steps; step += 1) {
    const angle = -Math.PI / 2 + (2 * Math.PI * step) / steps;
    const [nextX, nextY] = [rx * Math.cos(angle), ry * Math.sin(angle)];
    along.push(along[step - 1] + Math.hypot(nextX - x, nextY - y));
    [x, y] = [nextX, nextY];
  }
  const angles = [];
  let step = 0;
  for (let number = 0; number < count; number += 1) {
    const wanted = (along[steps] * number) / count;
    while (along[step + 1] < wanted) step += 1;
    angles.push(-Math.PI / 2 + (2 * Math.PI * step) / steps + turn);
  }
  return angles;
}
