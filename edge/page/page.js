// Opens the stream and hands what it tells to the parts of the page; opens it again whenever it breaks.

import { DayByHour } from "./day.js";
import { Events } from "./events.js";
import { Health } from "./health.js";
import { Live } from "./live.js";
import { boxClock, byId, say } from "./words.js";

const AGAIN_MILLISECONDS = 2000;
const LOST_MILLISECONDS = 4000; // before a broken stream is worth a banner
const HIDDEN_MILLISECONDS = 20000; // a page that nobody looks at costs the box nothing

const events = new Events();
const live = new Live(() => events.recent());
const day = new DayByHour((species) => {
  events.only(species);
  byId("events").focus({ preventScroll: false });
});
const health = new Health();

let stream = null;
let lostAt = null;
let identity = null;
let told = { state: "connecting", title: "Connecting…", text: "", since: null };

const tell = {
  hello({ page, password, now }) {
    boxClock.ahead = now - Date.now() / 1000;
    byId("logout").hidden = !password;
    // The server was updated: its stream is not for the scripts that run here. Once, in case something holds old ones back.
    const known = sessionStorage.getItem("page");
    sessionStorage.setItem("page", page);
    if (loaded !== null && loaded !== page && known !== page) location.reload();
    loaded ??= page;
  },
  record(record) {
    boxClock.offset = record.offset;
    say(byId("zone"), record.zone);
    if (identity !== null && identity !== record.identity) {
      events.forget();
      day.forget();
      health.forget();
    }
    identity = record.identity;
  },
  status(status) {
    told = status;
    showStatus();
  },
  seen: (utc) => health.tellSeen(utc),
  scale: (scale) => live.rescale(scale),
  live(message) {
    live.hear(message);
    health.tellSeen(message.utc);
  },
  events: (list) => events.tell(list),
  hours: (hours) => day.tellHours(hours),
  listened(listened) {
    day.tellListened(listened);
    health.tellMissed(listened);
    for (const id of ["from", "to"]) {
      byId(id).min = listened.first ?? "";
      byId(id).max = listened.date;
    }
  },
  health: (figures) => health.tell(figures),
  trend: (trend) => health.tellTrend(trend),
  gaps: (gaps) => health.tellGaps(gaps),
};
let loaded = null;

function open() {
  close();
  stream = new EventSource("stream");
  for (const [name, take] of Object.entries(tell)) stream.addEventListener(name, (message) => take(JSON.parse(message.data)));
  stream.addEventListener("hello", () => {
    lostAt = null;
    showStatus();
  });
  stream.addEventListener("error", () => {
    lostAt ??= performance.now();
    showStatus();
    // The browser asks again by itself, unless it was answered with an error: by a proxy while the server starts, or
    // since the password was changed.
    if (stream.readyState === EventSource.CLOSED) setTimeout(retry, AGAIN_MILLISECONDS);
  });
}

function close() {
  stream?.close();
  stream = null;
}

async function retry() {
  if (stream?.readyState !== EventSource.CLOSED) return;
  try {
    const answer = await fetch("api/events?before=1");
    if (answer.status === 401) location.reload();
  } catch {
    // not there yet
  }
  if (document.hidden) close();
  else open();
}

function showStatus() {
  const lost = lostAt !== null;
  const shown = lost ? { state: "connecting", title: "Reconnecting…", text: "The page's server does not answer. Trying again by itself.", since: null } : told;
  byId("state").dataset.state = shown.state;
  say(byId("state-title"), shown.title);
  document.title = shown.state === "fault" || shown.state === "off" ? `⚠ ${shown.title} · Birdcall` : "Birdcall";
  const banner = byId("banner");
  banner.hidden = lost ? performance.now() - lostAt < LOST_MILLISECONDS : ["listening", "connecting"].includes(shown.state);
  banner.dataset.state = shown.state;
  say(byId("banner-title"), `${shown.title}.`.replace("….", "…"));
  say(byId("banner-text"), shown.text + (shown.since ? ` Since ${shown.since_text}.` : ""));
}

let hiding = null;
document.addEventListener("visibilitychange", () => {
  clearTimeout(hiding);
  if (document.hidden) hiding = setTimeout(close, HIDDEN_MILLISECONDS);
  else if (stream === null) open();
});

setInterval(() => {
  say(byId("clock"), identity === null ? "" : boxClock.time(boxClock.now()).slice(0, 5));
  health.tick();
  events.tick();
  if (lostAt !== null) showStatus();
}, 1000);

open();
