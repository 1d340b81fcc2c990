/** One sound as waveform and spectrogram, with a playhead and, for a source, regions. */

import WaveSurfer from "./vendor/wavesurfer/wavesurfer.esm.js";
import RegionsPlugin from "./vendor/wavesurfer/regions.esm.js";
import SpectrogramPlugin from "./vendor/wavesurfer/spectrogram.esm.js";
import TimelinePlugin from "./vendor/wavesurfer/timeline.esm.js";
import { el } from "./elements.js";

const NONCE = document.querySelector('meta[name="csp-nonce"]').content;
const REGION = "rgba(224, 140, 20, 0.28)";
const LEAST = 0.05;

const styleOf = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** 256 colors from the softest to the loudest, through the colors that are given. */
function colorScale(colors) {
  const canvas = document.createElement("canvas");
  canvas.width = 256;
  canvas.height = 1;
  const brush = canvas.getContext("2d", { willReadFrequently: true });
  const gradient = brush.createLinearGradient(0, 0, 256, 0);
  colors.forEach((color, index) => gradient.addColorStop(index / (colors.length - 1), color));
  brush.fillStyle = gradient;
  brush.fillRect(0, 0, 256, 1);
  const { data } = brush.getImageData(0, 0, 256, 1);
  return Array.from({ length: 256 }, (_, k) => [...data.slice(4 * k, 4 * k + 4)].map((value) => value / 255));
}

export class TrackView {
  /** `color` is a name of the style sheet; `onSeek(seconds)` is called for a click. */
  constructor(container, { color, onSeek, onRegions }) {
    Object.assign(this, { container, color, onSeek, onRegions, duration: 0 });
    this.playhead = el("div", { class: "playhead" });
  }

  async load(blob, duration, rate) {
    this.clear();
    this.duration = duration;
    this.drawn = [blob, duration, rate];
    this.container.hidden = false;
    const ticks = duration > 20 ? 5 : duration > 8 ? 1 : 0.5;
    this.wave = WaveSurfer.create({
      container: this.container,
      cspNonce: NONCE,
      height: 72,
      sampleRate: Math.max(8000, rate),
      waveColor: styleOf(this.color),
      progressColor: styleOf(this.color),
      cursorWidth: 0,
      barWidth: 2, barGap: 1, barRadius: 2,
      normalize: true,
    });
    this.wave.registerPlugin(SpectrogramPlugin.create({
      height: 64, labels: false, fftSamples: 512, gainDB: 2, frequencyMax: rate / 2,
      colorMap: colorScale(["--sunken", this.color, "--text"].map(styleOf)),
    }));
    this.wave.registerPlugin(TimelinePlugin.create({ height: 14, timeInterval: ticks / 5, primaryLabelInterval: ticks, secondaryLabelInterval: 0, style: { fontSize: "10px" } }));
    if (this.onRegions) this.addRegions();
    this.wave.on("click", (share) => this.onSeek(share * this.duration));
    this.container.append(this.playhead);
    this.setTime(0);
    await this.wave.loadBlob(blob);
  }

  addRegions() {
    this.regions = this.wave.registerPlugin(RegionsPlugin.create());
    this.regions.enableDragSelection({ color: REGION, minLength: LEAST });
    for (const name of ["region-created", "region-updated", "region-removed"]) {
      this.regions.on(name, () => this.onRegions(this.marked()));
    }
  }

  /** [start, end] of the regions, in order of time. */
  marked() {
    const found = this.regions?.getRegions() ?? [];
    return found.filter((one) => one.end - one.start >= LEAST / 2).map((one) => [one.start, one.end])
      .sort((one, other) => one[0] - other[0]);
  }

  /** Replace all regions. */
  mark(pairs) {
    if (!this.regions) return;
    const report = this.onRegions;
    this.onRegions = () => {};
    this.regions.clearRegions();
    for (const [start, end] of pairs) this.regions.addRegion({ start, end, color: REGION, minLength: LEAST });
    this.onRegions = report;
    this.onRegions(this.marked());
  }

  setTime(seconds) {
    const share = this.duration ? Math.min(1, seconds / this.duration) : 0;
    this.playhead.style.left = `calc(${100 * share}% - ${share > 0.99 ? 2 : 0}px)`;
    this.playhead.hidden = seconds > this.duration + 0.05;
  }

  /** Draw again in the colors of the page, which follow the system's choice of light or dark. */
  async recolor() {
    if (!this.drawn) return;
    const marked = this.marked();
    await this.load(...this.drawn);
    this.mark(marked);
  }

  clear() {
    this.wave?.destroy();
    this.wave = this.regions = this.drawn = null;
    this.duration = 0;
    this.container.replaceChildren();
    this.container.hidden = true;
  }
}
