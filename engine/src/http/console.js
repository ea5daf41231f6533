"use strict";
const $ = (id) => document.getElementById(id);
// Sums every series of a metric, or those whose labels hold `part`.
function total(text, name, part = "") {
  let sum = 0;
  for (const line of text.split("\n")) {
    if (!line.startsWith(name) || !/[ {]/.test(line[name.length])) continue;
    if (part && !line.includes(part)) continue;
    sum += Number(line.slice(line.lastIndexOf(" ") + 1));
  }
  return sum;
}
function tiles(id, entries) {
  $(id).replaceChildren(...entries.map(([label, value]) => {
    const tile = document.createElement("div"), number = document.createElement("b");
    tile.className = "tile"; number.textContent = value.toLocaleString("en");
    tile.append(number, label);
    return tile;
  }));
}
function row(cells) {
  const tr = document.createElement("tr");
  tr.append(...cells.map((text) => Object.assign(document.createElement("td"), { textContent: text })));
  return tr;
}
async function look() {
  try {
    const ready = await fetch("readyz");
    $("ready").textContent = ready.ok ? "ready" : "not ready";
    $("ready").className = ready.ok ? "good" : "bad";
    const token = $("token").value;
    const options = token ? { headers: { authorization: "Bearer " + token } } : {};
    const metrics = await fetch("metrics", options);
    const text = metrics.ok ? await metrics.text() : "";
    tiles("now", [
      ["records waiting for a turn", total(text, "heddle_partition_in_work_records")],
      ["in memory", total(text, "heddle_partition_residents")],
      ["in the agenda", total(text, "heddle_agenda_window_entries")],
      ["stopped accounts", total(text, "heddle_account_stopped_accounts")],
      ["messages held back", total(text, "heddle_account_backlog_records")],
    ]);
    tiles("since", [
      ["webhooks taken", total(text, "heddle_webhook_requests_total", 'result="taken"')],
      ["customers' messages", total(text, "heddle_webhook_events_total", 'kind="message"')],
      ["duplicates dropped", total(text, "heddle_conversation_duplicates_total")],
      ["turns", total(text, "heddle_conversation_turns_total")],
      ["messages sent", total(text, "heddle_account_sends_total", 'result="accepted"')],
      ["outcome unknown", total(text, "heddle_account_unknown_total")],
      ["given up", total(text, "heddle_dlq_records_total")],
    ]);
    const answer = await fetch("v1/tenants", options);
    $("ask").hidden = answer.status !== 401 && !token;
    const tenants = answer.ok ? (await answer.json()).items : [];
    $("tenants").replaceChildren(...tenants.map((tenant) => row([
      tenant.id, tenant.name, tenant.channels.map((c) => c.kind + " " + c.account).join(", "),
      tenant.llm.provider, tenant.retention.messages,
    ])));
    $("fault").textContent = answer.ok || answer.status === 401 ? "" : (await answer.json()).detail;
  } catch (error) {
    $("ready").textContent = "";
    $("fault").textContent = "no answer from the node";
  }
}
look();
setInterval(look, 2000);
