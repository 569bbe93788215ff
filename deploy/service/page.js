"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const video = byId("video");
  const canvas = byId("boxes");
  const POLL_MS = 400;
  // A box of few pixels is drawn this much larger on each side, in screen pixels, so that it does not hide its object.
  const MARGIN = 3;

  let job = null; // what the service last said of it
  let frames = new Map(); // frame index -> records
  let records = [];
  let turn = 0; // counts videos: what belongs to an earlier one is dropped

  const headers = () => (byId("token").value ? { Authorization: `Bearer ${byId("token").value}` } : {});

  async function ask(path, options = {}) {
    const answer = await fetch(path, { ...options, headers: headers() });
    if (!answer.ok) {
      const content = await answer.json().catch(() => ({ detail: answer.statusText }));
      throw new Error(content.detail);
    }
    return answer;
  }

  async function showModel() {
    try {
      const state = await (await fetch("/readyz")).json();
      byId("token-row").hidden = !state.needs_token;
      const fault = state.fault ? ` (${state.fault})` : "";
      byId("model").textContent = state.model
        ? `Model version ${state.model.version}, ${state.status}${fault}`
        : `No model yet: ${state.status}${fault}`;
      if (!state.model) setTimeout(showModel, 2000);
    } catch {
      byId("model").textContent = "The service does not answer.";
    }
  }

  function say(text, isBad = false) {
    const line = byId("status");
    if (line.textContent !== text) line.textContent = text; // a screen reader speaks each change
    line.className = isBad ? "bad" : "";
  }

  function upload(file) {
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest(); // fetch does not tell how much is sent
      request.open("POST", "/v1/videos");
      for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
      request.upload.onprogress = (event) => {
        if (event.lengthComputable) byId("progress").value = event.loaded / event.total;
      };
      request.onerror = () => reject(new Error("The upload broke off."));
      request.onload = () => {
        let content = {};
        try {
          content = JSON.parse(request.responseText);
        } catch {
          content = { detail: request.statusText };
        }
        if (request.status === 202) resolve(content);
        else reject(new Error(content.detail));
      };
      const form = new FormData();
      form.append("file", file);
      request.send(form);
    });
  }

  async function detect(file) {
    const mine = ++turn;
    await forget();
    frames = new Map();
    records = [];
    byId("work").hidden = false;
    byId("save").disabled = true;
    byId("cancel").disabled = false;
    byId("found").textContent = "";
    if (video.src) URL.revokeObjectURL(video.src);
    video.src = URL.createObjectURL(file);
    say("Sending the video…");
    try {
      const accepted = await upload(file);
      if (mine !== turn) return;
      job = accepted;
      await follow(mine, job.id);
    } catch (error) {
      if (mine !== turn) return;
      job = null;
      byId("cancel").disabled = true;
      say(error.message, true);
    }
  }

  async function follow(mine, id) {
    let cursor = 0;
    for (;;) {
      const state = await (await ask(`/v1/videos/${id}`)).json();
      const answer = await ask(`/v1/videos/${id}/detections?partial=true&cursor=${cursor}`);
      cursor = Number(answer.headers.get("Next-Cursor"));
      const found = await answer.json();
      if (mine !== turn) return;
      job = state;
      for (const record of found) {
        records.push(record);
        if (!frames.has(record.frame_id)) frames.set(record.frame_id, []);
        frames.get(record.frame_id).push(record);
      }
      show(state);
      if (["done", "failed", "cancelled"].includes(state.state)) return;
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  function show(state) {
    const [first] = state.videos;
    byId("progress").value = state.progress;
    if (state.model) byId("model").textContent = `Model version ${state.model.version}`;
    const finished = ["done", "failed", "cancelled"].includes(state.state);
    byId("cancel").disabled = finished;
    byId("save").disabled = !finished || records.length === 0;
    if (state.state === "queued") say(`Waiting: ${state.queue_position} before this one.`);
    else if (state.state === "failed") say(first.error, true);
    else if (state.state === "done") say(`Done: ${first.num_frames} frames.`);
    else say(first.state === "detecting" ? "Detecting…" : "Reading the video…");
    draw();
  }

  const threshold = () => Number(byId("threshold").value);

  function frameIndex() {
    const rate = job?.videos?.[0]?.frame_rate;
    return rate ? Math.round((shownTime ?? video.currentTime) * rate) : 0;
  }

  let shownTime = null; // media time of the frame on screen, where the browser tells it

  function draw() {
    const shown = records.filter((record) => record.score >= threshold()).length;
    byId("found").textContent = `${shown} detections with at least this score, ${records.length} in all.`;
    const [width, height] = [video.videoWidth, video.videoHeight];
    if (!width) return;
    const ratio = window.devicePixelRatio || 1;
    const scale = (video.clientWidth * ratio) / width;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    canvas.style.height = `${video.clientWidth * (height / width)}px`;
    const context = canvas.getContext("2d");
    const index = frameIndex();
    const done = job?.videos?.[0]?.frames_done ?? 0;
    byId("frame").textContent = index < done || !job ? `Frame ${index}` : `Frame ${index}: not detected yet`;
    context.lineWidth = 2 * ratio;
    context.font = `${12 * ratio}px system-ui, sans-serif`;
    for (const record of frames.get(index) ?? []) {
      if (record.score < threshold()) continue;
      const [x, y, w, h] = record.bbox.map((value) => value * scale);
      const margin = MARGIN * ratio;
      context.strokeStyle = "#ffd400";
      context.strokeRect(x - margin, y - margin, w + 2 * margin, h + 2 * margin);
      const text = `${record.category} ${record.score.toFixed(2)}`;
      const top = y - margin > 16 * ratio ? y - margin - 15 * ratio : y + h + margin;
      context.fillStyle = "#000c";
      context.fillRect(x - margin, top, context.measureText(text).width + 6 * ratio, 15 * ratio);
      context.fillStyle = "#fff";
      context.fillText(text, x - margin + 3 * ratio, top + 11.5 * ratio);
    }
  }

  function watch(now, metadata) {
    shownTime = metadata.mediaTime;
    draw();
    video.requestVideoFrameCallback(watch);
  }

  async function forget() {
    const old = job;
    job = null;
    if (old) await ask(`/v1/videos/${old.id}`, { method: "DELETE" }).catch(() => undefined);
  }

  if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(watch);
  for (const event of ["timeupdate", "seeked", "loadeddata"]) video.addEventListener(event, draw);
  video.addEventListener("error", () => {
    if (video.src) byId("frame").textContent = "This browser cannot play the video; it is detected all the same.";
  });
  window.addEventListener("resize", draw);
  byId("threshold").addEventListener("input", () => {
    byId("threshold-value").textContent = threshold().toFixed(2);
    draw();
  });
  byId("cancel").addEventListener("click", async () => {
    turn += 1;
    await forget();
    byId("cancel").disabled = true;
    say("Cancelled.");
  });
  byId("save").addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(records)], { type: "application/json" }));
    link.download = "detections.json";
    link.click();
    URL.revokeObjectURL(link.href);
  });
  byId("form").addEventListener("submit", (event) => event.preventDefault());
  byId("file").addEventListener("click", (event) => {
    event.target.value = ""; // so that the same file can be chosen again
  });
  byId("file").addEventListener("change", (event) => {
    const [file] = event.target.files;
    if (file) detect(file);
  });
  const drop = byId("drop");
  for (const event of ["dragenter", "dragover"]) {
    drop.addEventListener(event, (drag) => {
      drag.preventDefault();
      drop.classList.add("over");
    });
  }
  for (const event of ["dragleave", "drop"]) drop.addEventListener(event, () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    const [file] = event.dataTransfer.files;
    if (file) detect(file);
  });
  showModel();
})();
