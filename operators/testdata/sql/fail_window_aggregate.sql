-- fails: 3:16+3: the window function `sum` needs state, which the sql operator does not keep yet
--  hint: filter and derive here, and aggregate what comes out with `logmill sql`
SELECT flight, sum(delay) OVER (ORDER BY scheduled) AS total FROM flights
