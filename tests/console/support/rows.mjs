// Rows that a server would collect over months.

/** A query of the numbers from 1, which both databases make. */
export function numbers(count) {
  return `WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ${count})`;
}

const ENTRY = `at, user_id, credential, role, scopes, action, target, subject_id, version_before, version_after, changed,
  outcome, detail, client, request_id`;

/** Copies the newest sign-in in the audit trail `count` times. `actor` is an expression of `n`, the number of the copy. */
export function copySignIns(count, actor) {
  return `
    ${numbers(count)}
    INSERT INTO audit_entries (actor, ${ENTRY})
    SELECT ${actor}, ${ENTRY}
    FROM numbers, audit_entries WHERE audit_entries.id = (SELECT max(id) FROM audit_entries WHERE action = 'user.sign_in');`;
}
