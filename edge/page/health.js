// How the listener does: figures of its last minute and of today, and what it missed.

import { boxClock, byId, duration, element, number, say, shortDay } from "./words.js";

const CAUSES = {
  "no microphone": "No microphone",
  stopped: "Microphone stopped",
  "no frames": "No sound came",
  zeros: "Only zeros",
  overrun: "Sound lost",
  "dropped windows": "Too slow: windows dropped",
  schedule: "Resting by schedule",
  "not running": "Not running",
  clock: "Clock was set",
  privacy: "Speech: not kept",
  "not recorded": "Not recorded",
};
const DEAF = ["no microphone", "stopped", "no frames", "zeros", "not running", "clock", "not recorded"];
const SVG = "http://www.w3.org/2000/svg";

export class Health {
  constructor() {
    this.line = null;
    this.today = {};
    this.missed = null;
    this.trend = {};
    this.seen = null;
    this.tiles = new Map();
    this.tick(); // the tiles in the order in which they are to stand
    this.draw();
  }

  tell({ line, today }) {
    this.line = line;
    this.today = today;
    this.draw();
  }

  tellTrend(trend) {
    this.trend = trend;
    this.draw();
  }

  tellMissed({ missed, listened }) {
    this.missed = listened.some((share) => share !== null) ? missed : null;
    this.draw();
  }

  tellSeen(utc) {
    if (utc === null || (this.seen !== null && utc <= this.seen && utc > this.seen - 60)) return;
    this.seen = utc;
    this.tick();
  }

  forget() {
    this.line = this.seen = null;
    this.draw();
    this.tick();
  }

  // Once a second: what gets older by itself.
  tick() {
    const age = this.seen === null ? null : Math.max(0, boxClock.now() - this.seen);
    const note = this.seen === null ? "never yet" : `${boxClock.time(this.seen)}${age > 72000 ? `, ${boxClock.day(this.seen)}` : ""}`;
    this.tile("seen", "Last sign of life", age === null ? null : age < 15 ? "now" : duration(age), age >= 15 ? "ago" : "", note, age > 180);
  }

  draw() {
    const line = this.line ?? {};
    const { today } = this;
    const known = (value) => value !== null && value !== undefined;
    say(byId("health-when"), this.line ? `the minute to ${boxClock.time(this.line.utc)}` : "");

    const clipped = (line.clipped_share ?? 0) > 0.001;
    const faint = known(line.level_dbfs) && line.level_dbfs < -85;
    let level = known(line.peak_dbfs) ? `peak ${number(line.peak_dbfs)} dBFS` : "";
    if (clipped) level = `${number(line.clipped_share * 100, 1)} % clipped: turn it down`;
    else if (faint) level = "very faint: is the microphone muted?";
    this.tile("level", "Input level", known(line.level_dbfs) ? number(line.level_dbfs) : null, "dBFS", level, clipped || faint, "level_dbfs");

    const slow = known(line.latency_p95_s) ? `95 %: ${number(line.latency_p95_s, 2)} s` : "";
    this.tile("latency", "Answer time", known(line.latency_p50_s) ? number(line.latency_p50_s, 2) : null, "s", slow, false, "latency_p95_s");

    const [missed, gaps] = this.missed ?? [null, 0];
    const lost = today.lost ? `${number(today.lost)} samples lost` : "no sample lost";
    this.tile("missed", "Missed today", missed === null ? null : missed ? duration(missed) : "nothing", "", missed === null ? "" : gaps ? `${gaps} gap${gaps > 1 ? "s" : ""}, ${lost}` : lost, false);

    const windows = this.line ? today.analysed + today.dropped : 0;
    const withheld = today.withheld ? `; ${number(today.withheld)} withheld for speech` : "";
    const dropped = this.line ? number(today.dropped) : null;
    this.tile("dropped", "Windows dropped", dropped, "", this.line ? `of ${number(windows)} today${withheld}` : "", (line.dropped ?? 0) > 0);

    let clips = known(line.clips_bytes) ? `clips ${bytes(line.clips_bytes).join(" ")}` : "";
    const full = known(line.disk_free_bytes) && line.disk_free_bytes < 1e9;
    if (line.clips_lost) clips = `${number(line.clips_lost)} clips not kept`;
    const [free, unit] = known(line.disk_free_bytes) ? bytes(line.disk_free_bytes) : [null, ""];
    this.tile("disk", "Disk free", free, unit, clips, full || Boolean(line.clips_lost));

    const hot = known(line.temperature_c) && line.temperature_c >= 80;
    this.tile("temperature", "Temperature", known(line.temperature_c) ? number(line.temperature_c) : null, "°C", hot ? "hot: it may slow down" : "", hot, "temperature_c");

    const [memory, memoryUnit] = known(line.resident_bytes) ? bytes(line.resident_bytes) : [null, ""];
    const load = known(line.cpu_share) ? `processor ${number(line.cpu_share * 100, line.cpu_share < 0.1 ? 1 : 0)} % of a core` : "";
    this.tile("memory", "Memory", memory, memoryUnit, load, false);
  }

  tile(name, title, figure, unit, note, warn, trend = null) {
    let tile = this.tiles.get(name);
    if (!tile) {
      tile = { node: element("div", "tile"), figure: element("span", "figure"), unit: element("span", "unit"), note: element("dd", "note") };
      const value = element("dd", "", null, tile.figure, " ", tile.unit);
      tile.node.append(element("dt", "", title), value, tile.note);
      tile.node.dataset.name = name;
      this.tiles.set(name, tile);
      byId("tiles").append(tile.node);
    }
    say(tile.figure, figure ?? "–");
    say(tile.unit, figure === null ? "" : unit);
    say(tile.note, figure === null && !note ? "not known" : note);
    tile.node.toggleAttribute("data-warn", Boolean(warn));
    if (trend) drawTrend(tile, this.trend[trend] ?? []);
  }

  tellGaps(gaps) {
    byId("gaps-empty").hidden = gaps.length > 0;
    byId("gaps").replaceChildren(...gaps.map(gapRow));
  }
}

function gapRow(gap) {
  const row = element("li", DEAF.includes(gap.cause) ? "gap deaf" : "gap");
  const cause = element("span", "cause", CAUSES[gap.cause] ?? gap.cause);
  const length = gap.end === null ? "goes on" : duration(Math.max(0, gap.end - gap.start));
  const when = element("span", "quiet", `${shortDay(gap.day)}, ${gap.time}`);
  row.append(element("span", "", null, cause, " ", when), element("span", "length", length));
  if (gap.detail) row.append(element("span", "detail", gap.detail));
  return row;
}

// The last day in a line; a break where there is no figure.
function drawTrend(tile, values) {
  const present = values.filter((value) => value !== null);
  if (!tile.svg) {
    tile.svg = document.createElementNS(SVG, "svg");
    tile.svg.setAttribute("viewBox", "0 0 96 26");
    tile.svg.setAttribute("preserveAspectRatio", "none");
    tile.svg.setAttribute("role", "img");
    tile.path = document.createElementNS(SVG, "path");
    tile.svg.append(tile.path);
    tile.node.append(tile.svg);
  }
  tile.svg.toggleAttribute("hidden", present.length < 2);
  if (present.length < 2) return;
  const low = Math.min(...present);
  const high = Math.max(...present);
  tile.svg.setAttribute("aria-label", `Last 24 hours: ${number(low, 1)} to ${number(high, 1)}`);
  let pen = "M";
  let path = "";
  values.forEach((value, place) => {
    if (value === null) pen = "M";
    else {
      path += `${pen}${place} ${(24 - (22 * (value - low)) / Math.max(high - low, 1e-9)).toFixed(1)}`;
      pen = "L";
    }
  });
  tile.path.setAttribute("d", path);
}

function bytes(count) {
  for (const [unit, size] of [["TB", 1e12], ["GB", 1e9], ["MB", 1e6]]) {
    if (count >= size) return [number(count / size, count < 10 * size ? 1 : 0), unit];
  }
  return [number(count / 1e3), "kB"];
}
