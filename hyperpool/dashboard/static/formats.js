// Values as people read them; hyperpool/overview/formats.py does the same.

const TIMES = [["h", 3.6e9], ["min", 6e7], ["s", 1e6], ["ms", 1e3]];
const SIZES = [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]];

function grouped(value) {
  // Halves go to the even neighbour, as in Python.
  let whole = Math.round(value);
  if (Math.abs(value % 1) === 0.5 && whole % 2 !== 0) whole -= 1;
  return whole.toLocaleString("en-US");
}

function short(value) {
  return value >= 100 || Number.isInteger(value) ? grouped(value) : value.toFixed(1);
}

function withUnit(value, units, smallest) {
  for (const [unit, size] of units) if (value >= 2 * size) return `${short(value / size)} ${unit}`;
  return `${short(value)} ${smallest}`;
}

/** A value for people, on one line. */
export function spell(kind, value) {
  if (value === null) return kind === "text" || kind === "code" ? "" : "-";
  if (typeof value === "string") return value.trim().split(/\s+/).join(" ");
  switch (kind) {
    case "count": return grouped(value);
    case "rate": return short(value);
    case "share": return `${Number((value * 100).toPrecision(3))} %`;
    case "time": return withUnit(value, TIMES, "µs");
    case "bytes": return withUnit(value, SIZES, "B");
    case "byterate": return `${withUnit(value, SIZES, "B")}/s`;
    default: return String(value);
  }
}
