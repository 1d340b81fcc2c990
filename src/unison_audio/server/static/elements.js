/** The page's elements, and how new ones are made. */

export const byId = (id) => document.getElementById(id);

/** Make an element; attributes that are false or missing are left out. */
export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value != null) made.setAttribute(key, String(value));
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

export const button = (label, onclick, attributes = {}) =>
  el("button", { type: "button", class: "small", onclick, ...attributes }, label);

/** Say something for a moment, also to screen readers. */
export function toast(message) {
  const place = byId("toast");
  place.textContent = message;
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => (place.textContent = ""), 4000);
}

export const seconds = (value) => `${(Math.round(value * 100) / 100).toString()}`;

/** A text field's number; undefined if it is empty. */
export function numberOf(input) {
  return input.value.trim() === "" ? undefined : Number(input.value);
}

/** Offer a sound as a file. */
export function saveBlob(blob, name) {
  const url = URL.createObjectURL(blob);
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
