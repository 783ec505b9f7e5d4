-- fails: 5:1+5: GROUP BY needs state, which the sql operator does not keep yet
--  hint: filter and derive here, and aggregate what comes out with `logmill sql`
SELECT carrier
FROM flights
GROUP BY carrier
