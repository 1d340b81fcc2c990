/** A request as text: a command, Python for the server, or curl. */

const FLAGS = {
  preset: "preset", steps: "steps", guidance_scale: "guidance-scale",
  num_candidates: "num-candidates", audio_length: "duration", duration: "duration", task: "task",
};

const FILLED_IN = "WORDS OF voice.wav";

const shell = (text) => (/^[\w./:=@-]+$/.test(text) ? text : `'${String(text).replaceAll("'", "'\\''")}'`);

/** Name of the result's file. */
export function resultName(entry) {
  return `${entry.task || "sound"}-${entry.request.fields.seed ?? 0}.${entry.request.fields.response_format ?? "wav"}`;
}

/** The command that makes the same on this machine. */
export function asCommand(entry) {
  const { request, variant } = entry;
  const { fields } = request;
  const words = ["unison-audio", "generate", shell(request.instruction), "-o", shell(resultName(entry))];
  if (request.source) words.push("--source", shell(entry.source.name));
  for (const region of (fields.regions ?? "").split(", ").filter(Boolean)) words.push("--region", region);
  if (fields.voice && !["female", "male"].includes(fields.voice)) words.push("--reference", "voice.wav", "--reference-text", shell(FILLED_IN));
  words.push("--seed", String(fields.seed ?? 0), "--variant", shell(variant));
  for (const [name, flag] of Object.entries(FLAGS)) {
    if (fields[name] !== undefined) words.push(`--${flag}`, shell(String(fields[name])));
  }
  return words.join(" ");
}

/** Python with the package `requests`. */
export function asPython(entry, origin, withKey) {
  const { request } = entry;
  const url = JSON.stringify(origin + request.path);
  const lines = [...(withKey ? ["import os", ""] : []), "import requests", ""];
  const headers = withKey ? ['    headers={"Authorization": "Bearer " + os.environ["UNISON_AUDIO_KEY"]},'] : [];
  const body = request.kind === "json"
    ? [`    json=${python(request.fields)},`]
    : [`    data=${python(request.fields)},`, `    files={"audio": open(${python(entry.source.name)}, "rb")},`];
  lines.push("answer = requests.post(", `    ${url},`, ...headers, ...body, ")", "answer.raise_for_status()");
  lines.push(`with open(${python(resultName(entry))}, "wb") as file:`, "    file.write(answer.content)");
  return lines.join("\n");
}

/** A curl command. */
export function asCurl(entry, origin, withKey) {
  const { request } = entry;
  const words = [`curl -fsS ${shell(origin + request.path)}`];
  if (withKey) words.push('-H "Authorization: Bearer $UNISON_AUDIO_KEY"');
  if (request.kind === "json") {
    words.push("-H 'Content-Type: application/json'", `-d ${shell(JSON.stringify(request.fields))}`);
  } else {
    words.push(`-F ${shell(`audio=@"${entry.source.name.replace(/[\\"]/g, "\\$&")}"`)}`);
    // --form-string takes a value as it is, where -F would open a file for a leading @.
    for (const [name, value] of Object.entries(request.fields)) words.push(`--form-string ${shell(`${name}=${value}`)}`);
  }
  words.push(`-o ${shell(resultName(entry))}`);
  return words.join(" \\\n  ");
}

function python(value) {
  if (Array.isArray(value)) return `[${value.map(python).join(", ")}]`;
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "object") {
    return `{${Object.entries(value).map(([key, one]) => `${JSON.stringify(key)}: ${python(one)}`).join(", ")}}`;
  }
  return JSON.stringify(value);
}
