/** Whether the server answers and is ready; and where a running request stands. */

import { callJson, readKey, ServerError } from "./api.js";
import { byId } from "./elements.js";

const IDLE_MS = 4000;
const AWAY_MS = 1000;

const WORDS = { waiting: "Loading the model", ready: "Ready", away: "Not reachable, trying again", locked: "Needs an API key" };

export class ServerState {
  /** `onReady()` is called whenever the server has become ready, also after a restart. */
  constructor(onReady) {
    Object.assign(this, { onReady, state: "", timer: 0 });
    this.look();
  }

  async look() {
    clearTimeout(this.timer);
    const next = await this.ask();
    const turned = next !== this.state && next === "ready";
    this.state = next;
    byId("server-state").dataset.state = next;
    this.timer = setTimeout(() => this.look(), next === "ready" ? IDLE_MS : AWAY_MS);
    if (turned) await this.onReady();
  }

  async ask() {
    try {
      const queue = await callJson("/v1/audio/queue");
      const state = queue.ready ? "ready" : "waiting";
      const running = queue.active_requests;
      byId("server-text").textContent = state === "ready" && running
        ? `${running} ${running === 1 ? "request" : "requests"} running` : WORDS[state];
      return state;
    } catch (error) {
      const state = error instanceof ServerError && error.status === 401 ? "locked" : "away";
      byId("server-text").textContent = state === "locked" && readKey() ? "Wrong API key" : WORDS[state];
      return state;
    }
  }
}

/** Follow a request until `stop` is called; `say(sentence, step, steps)` shows where it stands. */
export function follow(requestId, say) {
  const started = performance.now();
  let place = "Sent", at = null;
  const show = () => say(`${place}, ${((performance.now() - started) / 1000).toFixed(1)} s`, at?.step, at?.steps);
  const clock = setInterval(show, 100);
  const ask = async () => {
    try {
      const { ahead, ready, step, steps } = await callJson(`/v1/audio/queue?request_id=${encodeURIComponent(requestId)}`);
      if (!ready) place = "Waiting for the model";
      else if (ahead) place = `Waiting, ${ahead} ${ahead === 1 ? "sound" : "sounds"} before yours`;
      else if (ahead === 0) place = steps ? `Generating, step ${step} of ${steps}` : "Generating";
      at = ahead === 0 && steps ? { step, steps } : null;
    } catch {
      place = "Waiting for the server";
    }
  };
  const poll = setInterval(ask, 500);
  ask();
  show();
  return () => {
    clearInterval(clock);
    clearInterval(poll);
    return (performance.now() - started) / 1000;
  };
}
