// The latest events, the newest on top, by day; one player for all their clips.

import { boxClock, byId, dayInWords, duration, element, say, shortDay } from "./words.js";

const MOST_EVENTS = 300; // of the stream that are kept
const MOST_ROWS = 300; // besides those that were asked for
const MOST_ROWS_NARROW = 12; // so that the rest of the page is not far down
const narrow = matchMedia("(max-width: 999px)");
const CLIP_SECONDS = 20; // in which the clip of an event that has ended may still come
const ANNOUNCE_MILLISECONDS = 15000;

export class Events {
  constructor() {
    this.list = byId("event-list");
    this.latest = new Map(); // id: event, as the stream tells them
    this.rows = new Map(); // id: row, of those in the list
    this.groups = new Map(); // day: the list of its rows
    this.species = null; // the only one that is shown
    this.asked = 0; // rows that were asked for
    this.started = false;
    this.announced = 0;
    this.player = new Player(this);
    byId("older").addEventListener("click", () => this.older());
    byId("filter").addEventListener("click", () => this.only(null));
    this.list.addEventListener("click", (click) => {
      const play = click.target.closest(".play");
      if (play) this.player.toggle(this.rows.get(Number(play.value)).event);
    });
  }

  // Events of the stream: new ones, and those that changed.
  tell(events) {
    const fresh = this.started;
    for (const event of events) {
      const known = this.latest.has(event.id);
      this.latest.set(event.id, event);
      if (this.species === null || event.species === this.species) {
        this.show(event, fresh && !known);
        if (fresh && !known) this.announce(event);
      } else if (this.rows.has(event.id)) this.show(event, false);
    }
    this.started = true;
    for (const id of [...this.latest.keys()].sort((a, b) => a - b).slice(0, -MOST_EVENTS)) this.latest.delete(id);
    this.trim();
    this.note();
  }

  // Another record: its events have nothing to do with those before.
  forget() {
    this.latest.clear();
    this.empty();
    this.started = false;
    this.note();
  }

  empty() {
    this.rows.clear();
    this.groups.clear();
    this.list.replaceChildren();
    this.asked = 0;
    this.ended = false;
  }

  recent() {
    return [...this.latest.values()];
  }

  show(event, fresh) {
    let row = this.rows.get(event.id);
    if (!row) {
      row = makeRow(event);
      this.rows.set(event.id, row);
      if (fresh) row.node.classList.add("fresh");
      this.place(row);
    }
    fillRow(row, event, this.player.id === event.id);
  }

  place(row) {
    const { day, id } = row.event;
    let group = this.groups.get(day);
    if (!group) {
      group = element("ol");
      group.dataset.day = day;
      const heading = element("h3", "event-day", dayInWords(day, boxClock.day(boxClock.now())));
      const later = [...this.groups.values()].filter((other) => other.dataset.day < day).sort((a, b) => (a.dataset.day < b.dataset.day ? 1 : -1))[0];
      this.list.insertBefore(element("li", "", null, heading, group), later ? later.parentNode : null);
      this.groups.set(day, group);
    }
    // Nearly always it belongs on top, or, asked for, at the bottom.
    const last = group.lastElementChild;
    if (last && Number(last.dataset.id) > id) group.append(row.node);
    else group.insertBefore(row.node, [...group.children].find((node) => Number(node.dataset.id) < id) || null);
  }

  most() {
    return narrow.matches ? MOST_ROWS_NARROW : MOST_ROWS;
  }

  trim() {
    const most = this.most() + this.asked;
    if (this.rows.size <= most) return;
    for (const id of [...this.rows.keys()].sort((a, b) => a - b).slice(0, this.rows.size - most)) {
      const { node, event } = this.rows.get(id);
      node.remove();
      this.rows.delete(id);
      const group = this.groups.get(event.day);
      if (group && !group.firstElementChild) {
        group.parentNode.remove();
        this.groups.delete(event.day);
      }
    }
    this.ended = false;
  }

  note() {
    byId("events-empty").hidden = this.rows.size > 0;
    byId("older").hidden = this.rows.size === 0 || this.ended || (this.species === null && this.rows.size < Math.min(60, this.most()));
    byId("filter").hidden = this.species === null;
    if (this.species !== null) say(byId("filter"), `× only ${this.species}`);
  }

  // Show one species only, or all again.
  async only(species) {
    this.species = species;
    this.empty();
    if (species === null) for (const event of this.latest.values()) this.show(event, false);
    this.trim();
    this.note();
    if (species !== null) await this.older();
  }

  async older() {
    const last = [...this.list.querySelectorAll(":scope > li:last-child > ol > :last-child")].pop();
    const query = new URLSearchParams();
    if (last) query.set("before", last.dataset.id);
    if (this.species !== null) query.set("species", this.species);
    const species = this.species;
    byId("older").disabled = true;
    try {
      const answer = await fetch(`api/events?${query}`);
      if (!answer.ok) throw new Error(answer.status);
      const { events, more } = await answer.json();
      if (species !== this.species) return;
      for (const event of events) this.show(event, false);
      this.asked += events.length;
      this.ended = !more;
    } catch {
      say(byId("announce"), "Older events could not be had; try again.");
    } finally {
      byId("older").disabled = false;
      this.note();
    }
  }

  // Once a second: what gets older by itself.
  tick() {
    for (const id of [...this.latest.keys()].slice(-20)) {
      const row = this.rows.get(id);
      if (row && row.play.hidden) fillRow(row, row.event, false);
    }
  }

  announce(event) {
    if (performance.now() - this.announced < ANNOUNCE_MILLISECONDS) return;
    this.announced = performance.now();
    say(byId("announce"), `${event.species} at ${event.time}`);
  }

  mark(id, playing) {
    const row = this.rows.get(id);
    if (row) row.play.setAttribute("aria-pressed", String(playing));
  }

  lost(id) {
    const row = this.rows.get(id);
    if (row) {
      row.event.clip = null;
      fillRow(row, row.event, false);
    }
  }
}

function makeRow(event) {
  const row = { event, node: element("li", "event") };
  row.node.dataset.id = event.id;
  row.play = element("button", "play");
  row.play.type = "button";
  row.play.value = event.id;
  row.noClip = element("span", "no-clip");
  row.species = element("span", "species");
  row.when = element("span", "when");
  row.time = element("time", "", event.time);
  row.time.dateTime = new Date(event.start * 1000).toISOString();
  row.rest = element("span");
  row.when.append(row.time, row.rest);
  row.meter = element("meter");
  row.meter.max = 1;
  row.meter.setAttribute("aria-hidden", "true");
  row.percent = element("span");
  row.node.append(row.play, row.noClip, row.species, row.when, element("span", "probability", null, row.meter, row.percent));
  return row;
}

function fillRow(row, event, playing) {
  row.event = event;
  const address = clipAddress(event.clip);
  row.play.hidden = address === null;
  row.noClip.hidden = address !== null;
  row.play.setAttribute("aria-label", `Play ${event.species} at ${event.time}`);
  row.play.setAttribute("aria-pressed", String(playing));
  const waiting = !event.closed || boxClock.now() - event.end < CLIP_SECONDS;
  say(row.noClip, waiting ? "…" : "no clip");
  say(row.species, event.species);
  row.species.title = event.species;
  say(row.rest, event.closed ? ` · ${duration(event.end - event.start)}` : " · going on");
  row.rest.classList.toggle("going-on", !event.closed);
  row.meter.value = event.probability ?? 0;
  say(row.percent, event.probability === null ? "" : `${Math.round(event.probability * 100)} %`);
}

// Where a clip is, or null if its name is none: two names, neither of which leads anywhere else.
export function clipAddress(clip) {
  const parts = (clip ?? "").split("/");
  if (parts.length !== 2 || parts.some((part) => part === "" || part.startsWith("."))) return null;
  return `clips/${parts.map(encodeURIComponent).join("/")}`;
}

class Player {
  constructor(events) {
    this.events = events;
    this.id = null;
    this.audio = byId("audio");
    for (const name of ["play", "pause", "ended"]) this.audio.addEventListener(name, () => events.mark(this.id, !this.audio.paused));
    this.audio.addEventListener("error", () => {
      if (this.id === null || !this.audio.getAttribute("src")) return;
      say(byId("playing-when"), "this clip is no longer there");
      if (navigator.onLine) events.lost(this.id);
    });
    byId("close-player").addEventListener("click", () => this.close());
  }

  toggle(event) {
    if (this.id === event.id && !this.audio.error) {
      if (this.audio.paused) this.play();
      else this.audio.pause();
      return;
    }
    this.events.mark(this.id, false);
    this.id = event.id;
    const address = clipAddress(event.clip);
    say(byId("playing-species"), event.species);
    say(byId("playing-when"), `${shortDay(event.day)}, ${event.time}`);
    byId("save").href = address;
    byId("player").hidden = false;
    document.body.classList.add("with-player");
    this.audio.src = address;
    this.play();
  }

  play() {
    this.audio.play().catch(() => {}); // the error event, or the user, has stopped it
  }

  close() {
    this.audio.pause();
    this.audio.removeAttribute("src");
    this.audio.load();
    this.events.mark(this.id, false);
    this.id = null;
    byId("player").hidden = true;
    document.body.classList.remove("with-player");
  }
}
