// Numbers, times and names as people read them.

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];

/** Bytes in decimal units with three digits, as [number, unit]. */
export function parts(bytes) {
  let value = Math.abs(bytes);
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return [value.toFixed(digits), UNITS[unit]];
}

export function size(bytes) {
  return bytes === null || bytes === undefined ? "?" : parts(bytes).join("\u00a0");
}

export function rate(bytesPerSecond) {
  return `${size(bytesPerSecond)}/s`;
}

export function percent(fraction) {
  return `${Math.floor((fraction ?? 0) * 100)}\u00a0%`;
}

/** Seconds as a person says them. */
export function duration(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s}\u00a0s`;
  if (s < 3600) return `${Math.floor(s / 60)}\u00a0min` + (s < 600 && s % 60 ? ` ${s % 60}\u00a0s` : "");
  if (s < 86400) return `${Math.floor(s / 3600)}\u00a0h` + (Math.floor((s % 3600) / 60) ? ` ${Math.floor((s % 3600) / 60)}\u00a0min` : "");
  return plural(Math.floor(s / 86400), "day");
}

/** A time that was, from RFC 3339; `now` in milliseconds. */
export function ago(time, now = Date.now()) {
  const s = (now - Date.parse(time)) / 1000;
  return s < 2 ? "just now" : `${duration(s)} ago`;
}

/** Hours and minutes of a time, with the day where it is not today. */
export function clock(time) {
  const date = new Date(time);
  const today = date.toDateString() === new Date().toDateString();
  const hours = date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
  return today ? hours : `${date.toLocaleDateString([], { day: "numeric", month: "short", year: "numeric" })}, ${hours}`;
}

export function plural(count, noun) {
  return `${number(count)}\u00a0${noun}${count === 1 ? "" : "s"}`;
}

export function number(count) {
  return count.toLocaleString("en").replaceAll(",", "\u202f");
}

/** Text with what cannot be seen made visible: control characters and those that turn the direction of writing. */
export function shown(text) {
  return String(text ?? "").replace(
    // eslint-disable-next-line no-control-regex
    /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]/gu,
    (char) => `\u2039${char.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}\u203a`,
  );
}

/** What a want is called in a row: its model, or how many. */
export function title(want) {
  const models = want.models ?? [];
  if (models.length === 1) return shown(models[0].model);
  if (models.length > 1) return `${shown(nameOf(want))} (${plural(models.length, "model")})`;
  return shown(nameOf(want));
}

/** The want's file name without its suffix. */
export function nameOf(want) {
  return String(want.want ?? want.path).replace(/\.want$/, "");
}

const SOURCES = { hub: "Hub", mirror: "mirror", llmlb: "load balancer", store: "store", partial: "partial", fleet: "fleet" };

/** A `source` in words: `hub+store`, `adopted:ollama`. */
export function source(value) {
  if (!value) return "";
  return String(value)
    .split("+")
    .map((one) => SOURCES[one] ?? (one.startsWith("adopted:") ? `adopted from ${one.slice(8)}` : shown(one)))
    .join(", ");
}

/** The sources of all models of a want. */
export function sources(want) {
  const all = new Set((want.models ?? []).map((model) => source(model.source)).filter(Boolean));
  return [...all].slice(0, 3).join(", ");
}
