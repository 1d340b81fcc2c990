/** The microphone: a button that starts and stops, and gives a WAV file. */

import { decode, encodeWav } from "./wav_file.js";

export class Recorder {
  /** `onFile(blob, name)` gets the recording, `onProblem(sentence)` what went wrong. */
  constructor(button, { onFile, onProblem, mostSeconds }) {
    Object.assign(this, { button, onFile, onProblem, mostSeconds });
    button.addEventListener("click", () => (this.recorder ? this.stop() : this.start()));
  }

  async start() {
    this.button.disabled = true;
    let stream;
    try {
      // The browser's processing would change what is edited.
      const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
      stream = await navigator.mediaDevices.getUserMedia({ audio });
    } catch (error) {
      const secure = window.isSecureContext;
      this.onProblem(secure
        ? `The microphone cannot be used (${error.name}); allow it in the browser.`
        : "Browsers give the microphone only to pages of this machine or over https.");
      this.button.disabled = false;
      return;
    }
    const chunks = [];
    const recorder = new MediaRecorder(stream);
    recorder.addEventListener("dataavailable", (event) => chunks.push(event.data));
    recorder.addEventListener("stop", () => this.finish(stream, new Blob(chunks, { type: recorder.mimeType })));
    recorder.start();
    this.recorder = recorder;
    this.button.disabled = false;
    this.button.setAttribute("aria-pressed", "true");
    const started = performance.now();
    const show = () => {
      const passed = (performance.now() - started) / 1000;
      this.button.textContent = `Stop (${passed.toFixed(1)} s)`;
      if (passed >= this.mostSeconds()) this.stop();
    };
    show();
    this.timer = setInterval(show, 200);
  }

  stop() {
    clearInterval(this.timer);
    this.recorder?.stop();
    this.recorder = null;
    this.button.textContent = "Record";
    this.button.setAttribute("aria-pressed", "false");
  }

  async finish(stream, blob) {
    stream.getTracks().forEach((track) => track.stop());
    try {
      this.onFile(encodeWav(await decode(blob)), "recording.wav");
    } catch (error) {
      this.onProblem(`Nothing was recorded: ${error.message}`);
    }
  }
}
