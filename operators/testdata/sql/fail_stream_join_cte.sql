-- fails: 4:30+10: joining two streams needs state, which the sql operator does not keep yet
--  hint: join the stream with a static table, or put the streams one after the other with UNION ALL
WITH late AS (SELECT * FROM flights WHERE delay > 9)
SELECT l.flight FROM late l, arrivals r WHERE l.flight = r.flight
