-- fails: 4:6+10: joining two streams needs state, which the sql operator does not keep yet
--  hint: join the stream with a static table, or put the streams one after the other with UNION ALL
SELECT f.flight FROM flights f
JOIN arrivals r ON r.flight = f.flight
