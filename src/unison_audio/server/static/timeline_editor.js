/** The timeline: blocks on a lane, by pointer and by keyboard, and a list of the same events. */

import { button, byId, el, seconds } from "./elements.js";

const LEAST = 0.1;
const EDGE = 10;
const ROW = 36;
const STEP = 0.1;

const rounded = (value) => Math.round(value * 20) / 20;

export class TimelineEditor {
  constructor(onChange) {
    this.onChange = onChange;
    this.events = [];
    this.lane = byId("timeline-lane");
    this.list = byId("timeline-events");
    this.length = byId("timeline-seconds");
    this.length.addEventListener("change", () => this.setSeconds(Number(this.length.value)));
    byId("timeline-add").addEventListener("click", () => this.add());
    this.lane.addEventListener("pointerdown", (event) => this.press(event));
    this.lane.addEventListener("keydown", (event) => this.key(event));
    this.render();
  }

  get seconds() {
    return Math.max(0.5, Number(this.length.value) || 5);
  }

  setSeconds(value) {
    this.length.value = String(Math.max(0.5, value || 5, ...this.events.map((event) => event.end)));
    this.changed();
  }

  set(events, length) {
    this.events = events.map((event) => ({ ...event }));
    this.length.value = String(length);
    this.changed();
  }

  add(start, end) {
    const last = Math.max(0, ...this.events.map((event) => event.end));
    const from = start ?? (last < this.seconds - LEAST ? last : 0);
    const event = { start: from, end: end ?? Math.min(this.seconds, from + 1.5), text: "" };
    this.events.push(event);
    this.changed();
    this.list.querySelector("li:last-child .caption").focus();
    return event;
  }

  /** Draw a new block, or move or resize the one under the pointer. */
  press(down) {
    if (down.button !== 0) return;
    const box = this.lane.getBoundingClientRect();
    const time = (event) => ((event.clientX - box.left) / box.width) * this.seconds;
    const block = down.target.closest(".block");
    const from = time(down);
    let event = block && this.events[Number(block.dataset.index)];
    const before = event && { ...event };
    let way = "draw";
    if (block) {
      const place = block.getBoundingClientRect();
      way = down.clientX - place.left < EDGE ? "start" : place.right - down.clientX < EDGE ? "end" : "move";
    } else {
      down.preventDefault();
    }
    this.lane.setPointerCapture(down.pointerId);
    const move = (to) => {
      const now = Math.max(0, Math.min(this.seconds, time(to)));
      if (way === "draw") {
        if (!event && Math.abs(now - from) < LEAST) return;
        if (!event) this.events.push((event = { start: 0, end: 0, text: "" }));
        this.place(event, Math.min(from, now), Math.max(from, now, Math.min(from, now) + LEAST));
      } else if (way === "move") {
        const start = Math.max(0, Math.min(this.seconds - (before.end - before.start), before.start + now - from));
        this.place(event, start, start + before.end - before.start);
      } else if (way === "start") {
        this.place(event, Math.min(before.start + now - from, event.end - LEAST), event.end);
      } else {
        this.place(event, event.start, Math.max(before.end + now - from, event.start + LEAST));
      }
      this.renderLane();
    };
    const end = () => {
      this.lane.removeEventListener("pointermove", move);
      this.lane.removeEventListener("pointerup", end);
      this.lane.removeEventListener("pointercancel", end);
      this.changed();
      const index = this.events.indexOf(event);
      if (index < 0) return;
      if (way === "draw") this.list.children[index].querySelector(".caption").focus();
      else this.blockAt(index).focus();
    };
    this.lane.addEventListener("pointermove", move);
    this.lane.addEventListener("pointerup", end);
    this.lane.addEventListener("pointercancel", end);
  }

  /** Arrow keys move a block, with Shift its end; Delete removes it, Enter goes to its caption. */
  key(pressed) {
    const block = pressed.target.closest(".block");
    if (!block) return;
    const index = Number(block.dataset.index);
    const event = this.events[index];
    const step = { ArrowLeft: -STEP, ArrowRight: STEP }[pressed.key];
    if (step && pressed.shiftKey) {
      this.place(event, event.start, Math.max(event.start + LEAST, event.end + step));
    } else if (step) {
      const length = event.end - event.start;
      const start = Math.max(0, Math.min(this.seconds - length, event.start + step));
      this.place(event, start, start + length);
    } else if (pressed.key === "Delete" || pressed.key === "Backspace") {
      this.remove(index);
      pressed.preventDefault();
      return;
    } else if (pressed.key === "Enter") {
      pressed.preventDefault();
      this.list.children[index].querySelector(".caption").focus();
      return;
    } else {
      return;
    }
    pressed.preventDefault();
    this.changed();
    this.blockAt(index).focus();
  }

  place(event, start, end) {
    event.start = Math.max(0, rounded(start));
    event.end = Math.min(this.seconds, Math.max(rounded(end), event.start + LEAST));
  }

  remove(index) {
    this.events.splice(index, 1);
    this.changed();
    (this.blockAt(Math.min(index, this.events.length - 1)) ?? byId("timeline-add")).focus();
  }

  blockAt(index) {
    return this.lane.querySelector(`.block[data-index="${index}"]`);
  }

  changed() {
    this.render();
    this.onChange();
  }

  render() {
    this.renderLane();
    this.list.replaceChildren(...this.events.map((event, index) => this.row(event, index)));
  }

  renderLane() {
    const total = this.seconds;
    const unit = [0.5, 1, 2, 5, 10, 30, 60, 120].find((one) => total / one <= this.lane.clientWidth / 44) ?? 300;
    const ticks = [];
    for (let time = 0; time < total; time += unit) {
      const tick = el("span", { class: "tick", "aria-hidden": "true" }, `${seconds(time)} s`);
      tick.style.left = `${(100 * time) / total}%`;
      ticks.push(tick);
    }
    const ends = [];
    const order = this.events.map((_, index) => index).sort((a, b) => this.events[a].start - this.events[b].start);
    const blocks = [];
    for (const index of order) {
      const event = this.events[index];
      let row = ends.findIndex((end) => end <= event.start + 1e-6);
      if (row < 0) row = ends.length;
      ends[row] = event.end;
      const caption = event.text || `Event ${index + 1}`;
      const block = el("div", {
        class: "block", tabindex: 0, role: "button", "data-index": index,
        "aria-label": `${caption}, ${seconds(event.start)} to ${seconds(event.end)} seconds`,
      }, caption);
      block.style.left = `${(100 * event.start) / total}%`;
      block.style.width = `${(100 * (event.end - event.start)) / total}%`;
      block.style.top = `${20 + ROW * row}px`;
      blocks[index] = block;
    }
    this.lane.style.height = `${Math.max(100, 26 + ROW * ends.length)}px`;
    this.lane.replaceChildren(...ticks, ...blocks);
  }

  row(event, index) {
    const number = index + 1;
    const time = (name) => el("input", {
      type: "number", min: 0, max: 600, step: "any", value: seconds(event[name]), "aria-label": `${name === "start" ? "Start" : "End"} of event ${number} in seconds`,
      onchange: (change) => {
        const value = Number(change.target.value);
        if (name === "start") this.place(event, Math.min(value, event.end - LEAST), event.end);
        else {
          if (value > this.seconds) this.length.value = String(value);
          this.place(event, event.start, value);
        }
        this.changed();
      },
    });
    const caption = el("input", {
      class: "caption", value: event.text, placeholder: "a dog barking", list: "known-sounds", maxlength: 500, autocomplete: "off",
      "aria-label": `Sound of event ${number}`,
      oninput: (change) => {
        event.text = change.target.value.trim();
        this.renderLane();
        this.onChange();
      },
    });
    return el("li", {}, caption,
      el("span", { class: "inline" }, time("start"), "–", time("end"), "s"),
      button("×", () => this.remove(index), { "aria-label": `Delete event ${number}` }));
  }
}
