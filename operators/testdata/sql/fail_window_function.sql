-- fails: 3:16+10: the window function `row_number` needs state, which the sql operator does not keep yet
--  hint: filter and derive here, and aggregate what comes out with `logmill sql`
SELECT flight, row_number() OVER (PARTITION BY carrier ORDER BY scheduled) AS n FROM flights
