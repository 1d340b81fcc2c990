/** Source and result: opening, drawing, regions, playing in sync, and switching between them. */

import { button, byId, el, seconds, toast } from "./elements.js";
import { SyncPlayer } from "./player.js";
import { Recorder } from "./recorder.js";
import { TrackView } from "./track_view.js";
import { decode } from "./wav_file.js";

export class ListenPanel {
  /** `onChange()` is called when the source or its regions change. */
  constructor({ onChange, facts }) {
    Object.assign(this, { onChange, facts, source: null, regions: [] });
    const onSeek = (time) => this.player.seek(time);
    this.views = {
      A: new TrackView(byId("source-track"), { color: "--wave-source", onSeek, onRegions: (found) => this.showRegions(found) }),
      B: new TrackView(byId("result-track"), { color: "--wave-result", onSeek }),
    };
    this.player = new SyncPlayer({ onTime: (time) => this.showTime(time), onState: (playing) => this.showState(playing) });
    byId("play").addEventListener("click", () => (this.player.playing ? this.player.pause() : this.player.play()));
    byId("position").addEventListener("input", (event) => this.player.seek(Number(event.target.value)));
    for (const side of ["A", "B"]) {
      byId(`side-${side.toLowerCase()}`).addEventListener("change", () => {
        this.player.select(side);
        this.showSides();
      });
    }
    byId("region-add").addEventListener("click", () => this.addRegion());
    byId("source-clear").addEventListener("click", () => this.setSource(null));
    byId("source-file").addEventListener("change", (event) => {
      const [file] = event.target.files;
      if (file) this.open(file, file.name);
      event.target.value = "";
    });
    this.recorder = new Recorder(byId("record"), {
      onFile: (blob, name) => this.open(blob, name),
      onProblem: toast,
      mostSeconds: () => this.facts()?.limits.upload_seconds ?? 600,
    });
    this.acceptDrops(byId("listen"));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      for (const view of Object.values(this.views)) view.recolor();
    });
  }

  acceptDrops(place) {
    const over = (event) => {
      if (![...event.dataTransfer.types].includes("Files")) return;
      event.preventDefault();
      place.classList.add("dropping");
    };
    place.addEventListener("dragenter", over);
    place.addEventListener("dragover", over);
    place.addEventListener("dragleave", (event) => {
      if (!place.contains(event.relatedTarget)) place.classList.remove("dropping");
    });
    place.addEventListener("drop", (event) => {
      event.preventDefault();
      place.classList.remove("dropping");
      const [file] = event.dataTransfer.files;
      if (file) this.open(file, file.name);
    });
  }

  async open(blob, name) {
    try {
      await this.setSource({ blob, name });
    } catch (error) {
      toast(`${name}: ${error.message}`);
    }
  }

  /** Take {blob, name} as the source, or none. */
  async setSource(source, regions = []) {
    const buffer = source && (await decode(source.blob));
    this.source = source;
    this.player.load("A", buffer);
    byId("source-clear").hidden = !source;
    byId("drop").hidden = Boolean(source);
    byId("regions").hidden = !source;
    byId("source-name").textContent = source ? `${source.name}, ${seconds(buffer.duration)} s` : "";
    this.views.A.clear();
    if (source) {
      await this.views.A.load(source.blob, buffer.duration, this.rate());
      this.views.A.mark(regions);
    } else {
      this.showRegions([]);
    }
    this.showSides();
    this.onChange();
  }

  /** Show {blob, name, warnings}, or none; a result that cannot be decoded can be downloaded. */
  async setResult(result) {
    this.player.load("B", null);
    this.views.B.clear();
    byId("result-empty").hidden = Boolean(result);
    byId("result-actions").hidden = !result;
    byId("result-name").textContent = result?.name ?? "";
    byId("result-notes").replaceChildren(...(result?.warnings ?? []).map((note) => el("li", {}, note)));
    if (result) {
      const buffer = await decode(result.blob);
      this.player.load("B", buffer);
      this.player.select("B");
      byId("result-name").textContent = `${result.name}, ${seconds(buffer.duration)} s`;
      await this.views.B.load(result.blob, buffer.duration, this.rate());
    }
    this.showSides();
  }

  rate() {
    return this.facts()?.variant.sample_rate ?? 16_000;
  }

  addRegion() {
    const { duration } = this.views.A;
    const last = Math.max(0, ...this.regions.map(([, end]) => end));
    const start = last < duration - 0.2 ? last : 0;
    this.views.A.mark([...this.regions, [start, Math.min(duration, start + duration / 4)]]);
    this.focusRegion(this.regions.length - 1);
  }

  focusRegion(index) {
    const place = byId("region-list").children[index]?.querySelector("input") ?? byId("region-add");
    place.focus();
  }

  showRegions(found) {
    this.regions = found;
    const limits = [0, this.views.A.duration];
    byId("region-list").replaceChildren(...found.map((pair, index) => {
      const time = (side) => el("input", {
        type: "number", step: "any", min: 0, max: seconds(limits[1]), value: seconds(pair[side]),
        "aria-label": `${side ? "End" : "Start"} of region ${index + 1} in seconds`,
        onchange: (event) => {
          const changed = found.map((one) => [...one]);
          changed[index][side] = Math.max(limits[0], Math.min(limits[1], Number(event.target.value)));
          this.views.A.mark(changed.filter(([start, end]) => end > start));
        },
      });
      return el("li", {}, el("span", { class: "inline" }, time(0), "–", time(1), "s"),
        button("Delete", () => {
          this.views.A.mark(found.filter((_, other) => other !== index));
          this.focusRegion(Math.min(index, this.regions.length - 1));
        }, { "aria-label": `Delete region ${index + 1}` }));
    }));
    this.onChange();
  }

  showSides() {
    for (const side of ["A", "B"]) {
      const radio = byId(`side-${side.toLowerCase()}`);
      radio.disabled = !this.player.buffers[side];
      radio.checked = Boolean(this.player.buffers[side]) && this.player.heard === side;
      this.views[side].container.dataset.heard = String(radio.checked);
    }
    const { duration } = this.player;
    byId("play").disabled = byId("position").disabled = !duration;
    byId("position").max = String(duration || 1);
    this.showTime(this.player.time);
  }

  showTime(time) {
    byId("position").value = String(time);
    byId("clock").textContent = `${time.toFixed(1)} / ${this.player.duration.toFixed(1)} s`;
    for (const view of Object.values(this.views)) view.setTime(time);
  }

  showState(playing) {
    byId("play").dataset.playing = String(playing);
    byId("play").setAttribute("aria-label", playing ? "Pause" : "Play");
  }
}
