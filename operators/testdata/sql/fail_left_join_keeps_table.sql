-- fails: 3:30+8: keeping the table's rows that no row of the stream matches needs the end of the stream, which does not come
--  hint: write JOIN, or LEFT JOIN with the stream on the left
SELECT a.name, f.flight FROM airlines a LEFT JOIN flights f ON a.carrier = f.carrier
