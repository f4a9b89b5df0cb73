// A day's species by hour, with the hours that were listened to at all. Today's grows with the stream, others are asked for.

import { byId, dayAfter, element, say, shortDay } from "./words.js";

const HOURS = 24;
const MOST_SPECIES = 10; // before all are asked for
const HEATS = 5;

export class DayByHour {
  constructor(choose) {
    this.choose = choose; // a function of a species
    this.today = "";
    this.date = "";
    this.hours = {}; // of the day that is shown: species to 24 counts
    this.listened = [];
    this.todays = {}; // the hours of today
    this.heard = { date: "", listened: [] }; // of today
    this.first = null;
    this.all = false;
    this.rows = new Map();
    for (let hour = 0; hour < HOURS; hour++) byId("day-hours").append(element("th", "", String(hour)));
    for (const head of [...byId("day-hours").children].slice(1)) head.scope = "col";
    byId("day-hours").append(element("th", "total", "all"));
    this.listenedRow = element("tr", "listened", null, element("th", "", "Listened"));
    this.listenedRow.firstChild.scope = "row";
    for (let hour = 0; hour < HOURS; hour++) this.listenedRow.append(element("td"));
    byId("day-listened").append(this.listenedRow);
    byId("day-before").addEventListener("click", () => this.go(dayAfter(this.date, -1)));
    byId("day-after").addEventListener("click", () => this.go(dayAfter(this.date, 1)));
    byId("day-all").addEventListener("click", () => {
      this.all = !this.all;
      this.draw();
    });
  }

  // Counts of the stream: of a new day all, then those that changed.
  tellHours({ date, hours }) {
    if (date !== this.today) {
      const followed = this.date === this.today;
      this.today = date;
      this.todays = {};
      if (followed) this.date = date;
    }
    Object.assign(this.todays, hours);
    this.draw();
  }

  tellListened({ date, listened, first }) {
    this.first = first;
    this.heard = { date, listened };
    this.draw();
  }

  forget() {
    this.todays = {};
    this.today = this.date = "";
    this.draw();
  }

  async go(date) {
    this.date = date;
    if (date !== this.today) {
      this.hours = {};
      this.listened = [];
      try {
        const answer = await fetch(`api/day?date=${date}`);
        if (!answer.ok) throw new Error(answer.status);
        const day = await answer.json();
        if (this.date !== date) return;
        this.hours = day.hours;
        this.listened = day.listened;
        this.first = day.first;
      } catch {
        say(byId("announce"), "That day could not be had; try again.");
      }
    }
    this.draw();
  }

  draw() {
    const live = this.date === this.today;
    const hours = live ? this.todays : this.hours;
    const listened = live ? (this.heard.date === this.today ? this.heard.listened : []) : this.listened;
    say(byId("day-heading"), live ? "Today by hour" : "By hour");
    say(byId("day-date"), this.date ? shortDay(this.date) : "");
    byId("day-before").disabled = !this.date || !this.first || this.date <= this.first;
    byId("day-after").disabled = live;

    const totals = Object.entries(hours).map(([species, counts]) => [species, counts.reduce((sum, count) => sum + count, 0)]);
    totals.sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1));
    const shown = this.all ? totals : totals.slice(0, MOST_SPECIES);
    const most = Math.max(1, ...totals.map(([species]) => Math.max(...hours[species])));
    const nodes = shown.map(([species, total]) => this.row(species, hours[species], total, most));
    const body = byId("day-species");
    if (nodes.length !== body.children.length || nodes.some((node, place) => body.children[place] !== node)) body.replaceChildren(...nodes);
    for (const species of this.rows.keys()) if (!(species in hours)) this.rows.delete(species);

    byId("day-empty").hidden = totals.length > 0;
    say(byId("day-empty"), live ? "No birds yet today." : "No birds on this day.");
    byId("day-all").hidden = totals.length <= MOST_SPECIES;
    say(byId("day-all"), this.all ? `Show the ${MOST_SPECIES} commonest` : `Show all ${totals.length} species`);
    [...this.listenedRow.children].slice(1).forEach((cell, hour) => fillListened(cell, hour, listened[hour]));
  }

  row(species, counts, total, most) {
    let row = this.rows.get(species);
    if (!row) {
      const name = element("button", "plain", species);
      name.type = "button";
      name.title = `Show only ${species}`;
      name.addEventListener("click", () => this.choose(species));
      const head = element("th", "species", null, name);
      head.scope = "row";
      row = element("tr", "", null, head);
      for (let cell = 0; cell <= HOURS; cell++) row.append(element("td", cell === HOURS ? "total" : ""));
      this.rows.set(species, row);
    }
    counts.forEach((count, hour) => {
      const cell = row.children[hour + 1];
      say(cell, count ? String(count) : "");
      // By the root, or one busy hour would have all others look alike.
      cell.dataset.heat = count ? Math.ceil(HEATS * Math.sqrt(count / most)) : 0;
      cell.title = count ? `${species}, ${hour} to ${hour + 1} h: ${count}` : "";
    });
    say(row.lastElementChild, String(total));
    return row;
  }
}

function fillListened(cell, hour, share) {
  const known = share !== null && share !== undefined;
  if (known) cell.dataset.share = share >= 0.995 ? "full" : share <= 0.005 ? "none" : "part";
  else delete cell.dataset.share;
  const text = known ? `${Math.round(share * 100)} %` : "";
  cell.title = known ? `${hour} to ${hour + 1} h: listened ${text} of the time` : "";
  if (cell.firstChild?.textContent !== text) cell.replaceChildren(element("span", "hidden", text));
}
