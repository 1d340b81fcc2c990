/** Two sounds that play at the same time, of which one is heard: a switch keeps the place. */

export class SyncPlayer {
  /** `onTime(seconds)` follows the playback, `onState(playing)` its start and end. */
  constructor({ onTime, onState }) {
    Object.assign(this, { onTime, onState, buffers: {}, heard: "B", at: 0, running: null });
  }

  get duration() {
    return Math.max(0, ...Object.values(this.buffers).map((buffer) => buffer.duration));
  }

  get playing() {
    return this.running !== null;
  }

  get time() {
    if (!this.running) return this.at;
    return Math.min(this.duration, this.running.from + this.context.currentTime - this.running.started);
  }

  /** Set or remove (null) the sound of a side. */
  load(side, buffer) {
    this.pause();
    if (buffer) this.buffers[side] = buffer;
    else delete this.buffers[side];
    if (!this.buffers[this.heard]) this.heard = Object.keys(this.buffers)[0] ?? this.heard;
    this.seek(0);
  }

  select(side) {
    this.heard = side;
    for (const [name, gain] of Object.entries(this.running?.gains ?? {})) {
      // A short ramp, since a jump would click.
      gain.gain.setTargetAtTime(name === side ? 1 : 0, this.context.currentTime, 0.004);
    }
  }

  seek(seconds) {
    const playing = this.playing;
    this.pause();
    this.at = Math.max(0, Math.min(seconds, this.duration));
    this.onTime(this.at);
    if (playing) this.play();
  }

  async play() {
    if (this.playing || !this.duration) return;
    this.context ??= new AudioContext();
    await this.context.resume();
    if (this.playing) return;
    const from = this.at >= this.duration - 0.01 ? 0 : this.at;
    const started = this.context.currentTime + 0.02;
    const gains = {};
    const nodes = Object.entries(this.buffers).map(([name, buffer]) => {
      const node = new AudioBufferSourceNode(this.context, { buffer });
      gains[name] = new GainNode(this.context, { gain: name === this.heard ? 1 : 0 });
      node.connect(gains[name]).connect(this.context.destination);
      if (from < buffer.duration) node.start(started, from);
      return node;
    });
    this.running = { from, started, gains, nodes };
    this.onState(true);
    this.follow(this.running);
  }

  pause() {
    if (!this.running) return;
    this.at = Math.max(0, this.time);
    for (const node of this.running.nodes) node.disconnect();
    this.running = null;
    this.onState(false);
  }

  follow(running) {
    if (this.running !== running) return;
    const time = Math.max(0, this.time);
    this.onTime(time);
    if (time >= this.duration) {
      this.pause();
      this.onTime(this.at);
    } else {
      requestAnimationFrame(() => this.follow(running));
    }
  }
}
