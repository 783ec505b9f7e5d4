-- fails: 5:29+5: GROUP BY needs state, which the sql operator does not keep yet
--  hint: filter and derive here, and aggregate what comes out with `logmill sql`
-- fails: 5:46+6: HAVING needs groups, which are state the sql operator does not keep yet
--  hint: write WHERE
SELECT carrier FROM flights GROUP BY carrier HAVING carrier > 'B'
