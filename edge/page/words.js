// Small things that several parts of the page need: elements, numbers and times in words.
// Text reaches the page by textContent only: a species may be called anything.

export const byId = (id) => document.getElementById(id);

// An element with a class, a text and children.
export function element(tag, className = "", text = null, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== null) made.textContent = text;
  made.append(...children);
  return made;
}

// Set a text only if it changes, so that what is selected stays selected and nothing is drawn anew.
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Seconds as "34 s", "12 min", "3 h 5 min", "2 d 4 h".
export function duration(seconds) {
  if (seconds < 0.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 59.5) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return hours % 24 ? `${Math.floor(hours / 24)} d ${hours % 24} h` : `${hours / 24} d`;
}

// A day such as 2026-11-25 as "Wednesday 25 November"; the year where it is not this one.
export function dayInWords(day, today = "") {
  const options = { weekday: "long", day: "numeric", month: "long", timeZone: "UTC" };
  if (today && today.slice(0, 4) !== day.slice(0, 4)) options.year = "numeric";
  return new Intl.DateTimeFormat("en-GB", options).format(new Date(`${day}T00:00:00Z`));
}

// A day as "Wed 25 Nov".
export function shortDay(day) {
  const options = { weekday: "short", day: "numeric", month: "short", timeZone: "UTC" };
  return new Intl.DateTimeFormat("en-GB", options).format(new Date(`${day}T00:00:00Z`)).replace(",", "");
}

// The day so many days after another.
export function dayAfter(day, days) {
  return new Date(Date.parse(`${day}T00:00:00Z`) + days * 86400000).toISOString().slice(0, 10);
}

// A number with a sign that lines up, and thousands apart.
export function number(value, digits = 0) {
  return value.toLocaleString("en-GB", { minimumFractionDigits: digits, maximumFractionDigits: digits }).replace("-", "−");
}

// The box's clock: the viewer's may be wrong, or of another time zone.
export const boxClock = {
  ahead: 0, // seconds that the box's clock is before the viewer's
  offset: 0, // of the page's time zone, in seconds east of UTC
  now() {
    return Date.now() / 1000 + this.ahead;
  },
  // Seconds since 1970 as "10:05:03" of the page's time zone.
  time(utc) {
    return new Date((utc + this.offset) * 1000).toISOString().slice(11, 19);
  },
  day(utc) {
    return new Date((utc + this.offset) * 1000).toISOString().slice(0, 10);
  },
};
