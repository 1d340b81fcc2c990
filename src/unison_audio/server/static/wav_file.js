/** Sound files: decoding in the browser, and writing 16-bit WAV. */

const RATE = 48_000;

/** Decode a file into an AudioBuffer at 48 kHz. */
export async function decode(blob) {
  // An offline context needs no gesture of the user and no sound card.
  const context = new OfflineAudioContext(1, 1, RATE);
  try {
    return await context.decodeAudioData(await blob.arrayBuffer());
  } catch {
    throw new Error("This browser cannot decode the file; convert it to wav, flac or mp3.");
  }
}

/** Write an AudioBuffer as a WAV file of one channel. */
export function encodeWav(buffer) {
  const channels = Array.from({ length: buffer.numberOfChannels }, (_, k) => buffer.getChannelData(k));
  const view = new DataView(new ArrayBuffer(44 + 2 * buffer.length));
  const text = (at, letters) => [...letters].forEach((one, k) => view.setUint8(at + k, one.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * buffer.length, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, buffer.sampleRate, true);
  view.setUint32(28, 2 * buffer.sampleRate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, 2 * buffer.length, true);
  for (let k = 0; k < buffer.length; k++) {
    const mean = channels.reduce((sum, samples) => sum + samples[k], 0) / channels.length;
    view.setInt16(44 + 2 * k, Math.round(32767 * Math.max(-1, Math.min(1, mean))), true);
  }
  return new Blob([view.buffer], { type: "audio/wav" });
}
