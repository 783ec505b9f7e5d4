-- fails: 3:15+6: TUMBLE() makes windows, which are state the sql operator does not keep yet
--  hint: filter and derive here, and aggregate what comes out with `logmill sql`
SELECT * FROM TUMBLE(flights, scheduled, INTERVAL '1 hour')
