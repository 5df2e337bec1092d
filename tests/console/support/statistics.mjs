// Counts for the charts, which the server would collect over a month.

const COLUMNS = [
  'sign_ins_succeeded',
  'sign_ins_failed',
  'sign_ins_throttled',
  'registrations',
  'requests_authorized',
  'requests_refused',
  'keys_used',
  'keys_new_in_day',
  'hash_queue_max',
];

/** Writes counts for each hour of the last 40 days, with a day and a night, and one attack. */
export async function fillStatistics(server) {
  const rows = [];
  const now = Math.floor(Date.now() / 3_600_000);
  for (let back = 1; back < 40 * 24; back += 1) {
    const hour = new Date((now - back) * 3_600_000);
    const activity = 1 + Math.sin((hour.getUTCHours() / 24) * 2 * Math.PI - 2) + (back % 5) / 5;
    const isAttack = back >= 8 && back < 11;
    const values = [
      Math.round(20 * activity),
      Math.round(2 * activity) + (isAttack ? 60 : 0),
      isAttack ? 45 : 0,
      Math.round(activity),
      Math.round(3000 * activity),
      Math.round(40 * activity),
      Math.round(8 * activity),
      back % 24 === 0 ? 6 : 0,
      isAttack ? 12 : Math.round(activity),
    ];
    rows.push(`('${hour.toISOString().slice(0, 19).replace('T', ' ')}', ${values.join(', ')})`);
  }
  await server.sql(`INSERT INTO hourly_counts (hour, ${COLUMNS.join(', ')}) VALUES ${rows.join(',\n')};`);
}
