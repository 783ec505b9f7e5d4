-- fails: 5:8+5: the aggregate `count` needs state, which the sql operator does not keep yet
--  hint: filter and derive here, and aggregate what comes out with `logmill sql`
-- fails: 5:23+3: the aggregate `max` needs state, which the sql operator does not keep yet
--  hint: filter and derive here, and aggregate what comes out with `logmill sql`
SELECT count(*) AS n, max(delay) AS worst FROM flights
