-- fails: 3:32+6: UNNEST in FROM is not supported by the sql operator yet
--  hint: unnest in the SELECT list: `SELECT id, unnest(items) AS item FROM orders`
SELECT flight, t FROM flights, UNNEST(tags) AS u(t)
