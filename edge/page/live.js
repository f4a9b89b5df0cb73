// The live spectrogram: columns come a few at a time and are scrolled by evenly; under them, what was heard when.

import { boxClock, byId, say } from "./words.js";

const COLUMNS = 1280; // that are kept
const LAG_SECONDS = 0.6; // behind the newest column, so that there is always one to scroll to
const DEAD_SECONDS = 4; // without a column
const HOLE_COLUMNS = 6;
const FLOOR_MILLISECONDS = 2000; // between two looks at what is noise
const LANES = 2; // rows of names
const LANE = 20; // pixels for one
const AXIS = 18; // pixels for times

// From silence to loud, by day and by night.
const COLOURS = {
  light: [[245, 243, 236], [207, 222, 203], [126, 172, 134], [44, 106, 76], [16, 44, 36], [8, 16, 20]],
  dark: [[15, 20, 18], [18, 42, 36], [29, 84, 67], [79, 154, 106], [196, 214, 122], [255, 250, 214]],
};

const night = matchMedia("(prefers-color-scheme: dark)");
const still = matchMedia("(prefers-reduced-motion: reduce)");

export class Live {
  constructor(events) {
    this.events = events; // a function that gives the latest events
    this.canvas = byId("live");
    this.pen = this.canvas.getContext("2d");
    this.image = document.createElement("canvas");
    this.scale = null;
    this.arrived = 0;
    night.addEventListener("change", () => this.recolour());
    new ResizeObserver(() => this.resize()).observe(this.canvas);
    this.recolour();
    const frame = (at) => {
      this.frame(at);
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  }

  // What columns are: how many bands, how many a second.
  rescale(scale) {
    this.scale = scale;
    this.image.width = COLUMNS;
    this.image.height = scale.bands;
    this.brush = this.image.getContext("2d");
    this.pixels = this.brush.createImageData(1, scale.bands);
    this.levels = new Uint8Array(COLUMNS * scale.bands);
    this.clear();
  }

  clear() {
    this.count = 0; // columns ever appended; the newest is count - 1
    this.first = 0;
    this.utc = null; // of the newest
    this.shown = 0; // the column at the right edge
    this.holes = new Uint8Array(COLUMNS);
    this.floor = null;
    this.floorAt = 0;
    this.brush.clearRect(0, 0, COLUMNS, this.scale.bands);
  }

  // Columns as bytes in base64, the last of which was heard at `utc`.
  hear(message) {
    if (!this.scale) return;
    const { bands, columns_per_second: rate } = this.scale;
    const text = atob(message.columns);
    const columns = Math.floor(text.length / bands);
    let skip = 0;
    if (this.utc !== null) {
      // After a reconnection all is sent again; after a pause there is a hole; the box's clock may have been set back.
      const apart = Math.round((message.utc - this.utc) * rate) - columns;
      if (message.utc < this.utc - 2 || apart > COLUMNS) this.clear();
      else if (apart > HOLE_COLUMNS) for (let i = 0; i < apart; i++) this.append(null);
      else if (apart < -HOLE_COLUMNS) skip = Math.min(columns, -apart);
    }
    for (let column = skip; column < columns; column++) this.append(text, column * bands);
    if (skip < columns) {
      this.utc = message.utc;
      this.arrived = performance.now();
    }
  }

  append(text, from) {
    const { bands } = this.scale;
    const slot = this.count % COLUMNS;
    this.holes[slot] = text === null;
    if (text !== null) {
      for (let band = 0; band < bands; band++) this.levels[slot * bands + band] = text.charCodeAt(from + band);
    }
    this.count++;
    this.first = Math.max(0, this.count - COLUMNS);
    this.paint(slot);
  }

  paint(slot) {
    const { bands } = this.scale;
    if (this.holes[slot] || !this.floor) {
      this.brush.clearRect(slot, 0, 1, bands);
      return;
    }
    const data = this.pixels.data;
    for (let band = 0; band < bands; band++) {
      const above = (this.levels[slot * bands + band] - this.floor[band]) / this.span;
      const shade = Math.max(0, Math.min(255, Math.round(above * 255))) * 3;
      const at = (bands - 1 - band) * 4;
      data[at] = this.shades[shade];
      data[at + 1] = this.shades[shade + 1];
      data[at + 2] = this.shades[shade + 2];
      data[at + 3] = 255;
    }
    this.brush.putImageData(this.pixels, slot, 0);
  }

  repaint() {
    if (this.scale) for (let column = this.first; column < this.count; column++) this.paint(column % COLUMNS);
  }

  // What is noise: of each band the level that it is above for most of the time, and how far birds stand out of that.
  findFloor() {
    const { bands } = this.scale;
    const columns = [];
    for (let column = this.first; column < this.count; column += 3) {
      if (!this.holes[column % COLUMNS]) columns.push((column % COLUMNS) * bands);
    }
    if (!columns.length) return;
    const all = new Uint32Array(256);
    const floor = new Float32Array(bands);
    for (let band = 0; band < bands; band++) {
      const levels = Uint8Array.from(columns, (at) => this.levels[at + band]).sort();
      floor[band] = levels[Math.floor(levels.length * 0.5)];
      for (const level of levels) all[Math.max(0, level - Math.round(floor[band]))]++;
    }
    // A hum or a waterfall is taken back, not away: 0.8 of the way from the quietest band.
    const quietest = Math.min(...floor);
    let loudest = 255;
    for (let left = columns.length * bands * 0.002; loudest > 0 && left > 0; loudest--) left -= all[loudest];
    const first = !this.floor;
    if (first) this.floor = new Float32Array(bands);
    const pull = first ? 1 : 0.3;
    for (let band = 0; band < bands; band++) {
      const wanted = quietest + 0.8 * (floor[band] - quietest) + 10;
      this.floor[band] += pull * (wanted - this.floor[band]);
    }
    const span = Math.max(50, Math.min(150, loudest * 0.95)); // bytes; 20 to 65 dB
    this.span = first ? span : this.span + pull * (span - this.span);
    this.repaint();
  }

  recolour() {
    const stops = night.matches ? COLOURS.dark : COLOURS.light;
    this.shades = new Uint8Array(256 * 3);
    for (let shade = 0; shade < 256; shade++) {
      const at = (shade / 255) * (stops.length - 1);
      const low = Math.min(stops.length - 2, Math.floor(at));
      for (let part = 0; part < 3; part++) {
        this.shades[shade * 3 + part] = stops[low][part] + (at - low) * (stops[low + 1][part] - stops[low][part]);
      }
    }
    const style = getComputedStyle(document.documentElement);
    this.ink = Object.fromEntries(["ink", "quiet", "line", "leaf", "leaf-soft", "card"].map((name) => [name, style.getPropertyValue(`--${name}`)]));
    this.repaint();
  }

  resize() {
    const density = Math.min(2, devicePixelRatio || 1);
    this.width = this.canvas.clientWidth;
    this.height = this.canvas.clientHeight;
    this.canvas.width = Math.round(this.width * density);
    this.canvas.height = Math.round(this.height * density);
    this.pen.setTransform(density, 0, 0, density, 0, 0);
  }

  frame(at) {
    const past = (at - (this.framed || 0)) / 1000;
    if (!this.width || past < (still.matches ? 1 : 0.03)) return;
    this.framed = at;
    const alive = this.scale && this.utc !== null && at - this.arrived < DEAD_SECONDS * 1000;
    byId("live-empty").hidden = Boolean(alive);
    this.canvas.style.opacity = alive ? 1 : 0.35;
    this.pen.clearRect(0, 0, this.width, this.height);
    if (!this.scale || this.utc === null) return;
    if (at - this.floorAt > FLOOR_MILLISECONDS || (!this.floor && this.count)) {
      this.floorAt = at;
      this.findFloor();
    }
    const rate = this.scale.columns_per_second;
    const wanted = this.count - LAG_SECONDS * rate;
    this.shown += past * rate;
    if (Math.abs(wanted - this.shown) > 2 * rate || still.matches) this.shown = wanted;
    this.shown = Math.min(this.count, this.shown + 0.05 * (wanted - this.shown));
    this.draw(rate);
  }

  draw(rate) {
    const { pen, width } = this;
    const seconds = Math.max(20, Math.min(60, width / 16));
    const height = this.height - AXIS - LANES * LANE;
    const perColumn = width / (seconds * rate);
    const x = (column) => width - (this.shown - column) * perColumn;
    // The image is a ring of columns: it is drawn in two parts, the second beginning where the ring begins anew.
    pen.imageSmoothingEnabled = true;
    const from = Math.max(this.first, Math.floor(this.shown - seconds * rate) - 1);
    for (let begin = from; begin < this.count; ) {
      const end = Math.min(this.count, begin - (begin % COLUMNS) + COLUMNS);
      pen.drawImage(this.image, begin % COLUMNS, 0, end - begin, this.scale.bands, x(begin), 0, (end - begin) * perColumn, height);
      begin = end;
    }
    const toColumn = (utc) => this.count - (this.utc - utc) * rate;
    this.drawAxes(height, (utc) => x(toColumn(utc)), seconds);
    this.drawEvents(height + AXIS, (utc) => x(toColumn(utc)));
    say(byId("live-note"), `last ${Math.round(seconds)} s, up to ${Math.round(this.scale.high_hz / 1000)} kHz`);
  }

  drawAxes(height, x, seconds) {
    const { pen, width, ink } = this;
    pen.font = "11px system-ui, sans-serif";
    pen.textBaseline = "middle";
    const top = this.scale.high_hz;
    for (let hertz = 2000; hertz < top; hertz += height < 130 ? 4000 : 2000) {
      const y = Math.round(height * (1 - hertz / top)) + 0.5;
      pen.globalAlpha = 0.25;
      pen.strokeStyle = ink.quiet;
      pen.beginPath();
      pen.moveTo(0, y);
      pen.lineTo(width, y);
      pen.stroke();
      pen.globalAlpha = 1;
      const text = `${hertz / 1000} kHz`;
      pen.fillStyle = ink.card;
      pen.globalAlpha = 0.75;
      pen.fillRect(0, y - 7, pen.measureText(text).width + 8, 14);
      pen.globalAlpha = 1;
      pen.fillStyle = ink.ink;
      pen.fillText(text, 4, y);
    }
    pen.fillStyle = ink.quiet;
    pen.textAlign = "center";
    const step = seconds > 30 ? 10 : 5;
    for (let utc = Math.floor(this.utc / step) * step; x(utc) > -30; utc -= step) {
      if (x(utc) > 28 && x(utc) < width - 26) pen.fillText(boxClock.time(utc), x(utc), height + AXIS / 2);
    }
    pen.textAlign = "start";
  }

  drawEvents(top, x) {
    const { pen, width, ink } = this;
    const reached = new Array(LANES).fill(-Infinity);
    const seen = this.events().filter((event) => x(event.end) > 0 && x(event.start) < width);
    pen.font = "600 12px system-ui, sans-serif";
    for (const event of seen.sort((a, b) => a.start - b.start)) {
      const left = x(event.start);
      const lane = reached.findIndex((end) => end <= left + 1);
      if (lane < 0) continue;
      reached[lane] = x(event.end);
      const y = top + lane * LANE;
      const length = Math.max(6, x(event.end) - left - 2);
      pen.fillStyle = ink["leaf-soft"];
      pen.beginPath();
      pen.rect(left, y, length, LANE - 3);
      pen.fill();
      pen.fillStyle = ink.leaf;
      pen.fillRect(left, y, 3, LANE - 3);
      pen.save();
      pen.clip();
      pen.fillStyle = ink.ink;
      pen.fillText(event.species, Math.max(left, 0) + 8, y + LANE / 2 - 1);
      pen.restore();
    }
  }
}
