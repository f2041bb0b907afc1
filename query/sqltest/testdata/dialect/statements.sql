-- Whole statements; expected column names and rows are DataFusion 55's and were reproduced on DuckDB 1.5.5 with settings + macros + rewrite layer (table x as in expressions.sql).
-- => a: (1.0,); (2.0,); (None,)
SELECT a FROM (VALUES (2),(NULL),(1)) v(a) ORDER BY a;
-- => a: (None,); (2.0,); (1.0,)
SELECT a FROM (VALUES (2),(NULL),(1)) v(a) ORDER BY a DESC;
-- => a: (2.0,); (1.0,); (None,)
SELECT a FROM (VALUES (2),(NULL),(1)) v(a) ORDER BY a DESC NULLS LAST;
-- => count(*): (2.0,)
SELECT COUNT(*) FROM (VALUES (1),(2)) v(a);
-- => s, m, c: (3.0, 1.166666667, 1.0)
SELECT sum(a)/2 AS s, avg(a)/2 AS m, count(*)/2 AS c FROM (VALUES (1),(2),(4)) v(a);
-- => p: (233.3333333,)
SELECT sum(a)*100.0/count(*) AS p FROM (VALUES (1),(2),(4)) v(a);
-- => mixedcase, MixedCase2: (1.0, 2.0)
SELECT 1 AS MixedCase, 2 AS "MixedCase2";
-- => x: (1.0,)
SELECT A AS x FROM (SELECT 1 AS a) q;
-- => a: (1.0,)
WITH t AS (SELECT 1 AS a) SELECT * FROM t;
-- => a, b: (1.0, 2.0)
WITH t AS (SELECT 1 AS a), u AS (SELECT a+1 AS b FROM t) SELECT t.a, u.b FROM t, u;
-- => g, n: (0.0, 1.0); (1.0, 2.0)
SELECT a % 2 AS g, count(*) AS n FROM (VALUES (1),(2),(3)) v(a) GROUP BY g ORDER BY g;
-- => g, n: (1.0, 2.0)
SELECT a % 2 AS g, count(*) AS n FROM (VALUES (1),(2),(3)) v(a) GROUP BY 1 HAVING count(*) > 1;
-- => a: (1.0,); (2.0,)
SELECT DISTINCT a FROM (VALUES (1),(1),(2)) v(a) ORDER BY a;
-- => a, rn: (1.0, 2.0); (2.0, 1.0)
SELECT a, row_number() OVER (ORDER BY a DESC) AS rn FROM (VALUES (1),(2)) v(a) ORDER BY a;
-- => a, p: (1.0, None); (2.0, 1.0)
SELECT a, lag(a) OVER (ORDER BY a) AS p FROM (VALUES (1),(2)) v(a) ORDER BY a;
-- => f, l: (3.0, 1.0)
SELECT first_value(a ORDER BY a DESC) AS f, last_value(a ORDER BY a DESC) AS l FROM (VALUES (1),(2),(3)) v(a);
-- => n: (2.0,)
SELECT count(*) FILTER (WHERE a > 1) AS n FROM (VALUES (1),(2),(3)) v(a);
-- => l: ([1, 3],)
SELECT array_agg(a ORDER BY a) AS l FROM (VALUES (3),(1)) v(a);
-- => s: ('x,y',)
SELECT string_agg(b, ',' ORDER BY b) AS s FROM (VALUES ('y'),('x')) v(b);
-- => u: (1.0,); (2.0,); (3.0,)
SELECT unnest([1,2,3]) AS u;
-- => value: (1.0,); (2.0,); (3.0,)
SELECT * FROM generate_series(1,3);
-- => value: (0.0,); (1.0,)
SELECT value FROM range(2);
-- => a, b: (1.0, None); (2.0, 'x')
SELECT v.a, w.b FROM (VALUES (1),(2)) v(a) LEFT JOIN (VALUES (2,'x')) w(a,b) ON v.a = w.a ORDER BY v.a;
-- => a: (2.0,)
SELECT a FROM (VALUES (1),(2)) v(a) WHERE a IN (SELECT b FROM (VALUES (2)) w(b));
-- => a: (2.0,)
SELECT a FROM (VALUES (1),(2)) v(a) WHERE EXISTS (SELECT 1 FROM (VALUES (2)) w(b) WHERE b = a);
-- => m: (5.0,)
SELECT (SELECT max(b) FROM (VALUES (2),(5)) w(b)) AS m;
-- => a: (2.0,); (1.0,)
SELECT 1 AS a UNION ALL SELECT 2 ORDER BY a DESC;
-- => a: (1.0,)
SELECT 1 AS a UNION SELECT 1;
-- => a: (1.0,)
SELECT 1 AS a INTERSECT SELECT 1;
-- => a: (2.0,)
SELECT a FROM (VALUES (1),(2)) v(a) EXCEPT SELECT 1;
-- => b: (2.0,)
SELECT * EXCEPT (a) FROM (SELECT 1 AS a, 2 AS b) q;
-- => b: (2.0,)
SELECT * EXCLUDE (a) FROM (SELECT 1 AS a, 2 AS b) q;
-- => a, b: (5.0, 2.0)
SELECT * REPLACE (5 AS a) FROM (SELECT 1 AS a, 2 AS b) q;
-- => c: ('a',)
SELECT CASE WHEN 1 = 1 THEN 'a' ELSE 'b' END AS c;
-- => end: (1.0,)
SELECT q."end" FROM (SELECT 1 AS "end") q;
-- => end: (1.0,)
SELECT end FROM (SELECT 1 AS "end") q;
-- => e: (1.0,)
SELECT CASE WHEN end > 0 THEN end ELSE 0 END AS e FROM (SELECT 1 AS "end") q;
-- => begin: (1.0,)
SELECT begin FROM (SELECT 1 AS begin) q;
-- => a: (2.0,)
SELECT a FROM (VALUES (1),(2),(3)) v(a) ORDER BY a LIMIT 1 OFFSET 1;
-- => m, s, v: (2.0, 1.527525232, 2.333333333)
SELECT median(a) AS m, stddev(a) AS s, var(a) AS v FROM (VALUES (1),(2),(4)) v(a);
-- => b, n: (1710591120000000000, 1.0)
SELECT date_bin('1 minute', t) AS b, count(*) AS n FROM x GROUP BY 1;
-- => t: (1710591130123456789,)
SELECT t FROM x WHERE t BETWEEN '2024-03-16T00:00:00Z' AND '2024-03-17T00:00:00Z';
-- => n: (0.0,)
SELECT count(*) AS n FROM x WHERE t >= NOW() - INTERVAL '1 hour';
-- => n: (1.0,)
SELECT count(*) AS n FROM x WHERE t >= TIMESTAMP '2024-03-16T14:12:10+02:00';
-- => n: (1.0,)
SELECT count(*) AS n FROM x WHERE t <= TIMESTAMP '2024-03-16T14:12:11+02:00';
-- => d: (0.0,)
SELECT CAST(max(t) - min(t) AS BIGINT) AS d FROM x;
-- => i: (1.71059113e+18,)
SELECT arrow_cast(t, 'Int64') AS i FROM x;
-- => v: ('x',)
SELECT named_struct('a', 1, 'b', 'x')['b'] AS v;
-- => n: (2.0,)
SELECT approx_distinct(a) AS n FROM (VALUES (1),(2),(2)) v(a);
-- => a: ('a_b',)
SELECT a FROM (VALUES ('a_b'),('axb')) v(a) WHERE a LIKE 'a\_b';
-- => a: ('a_b',); ('axb',)
SELECT a FROM (VALUES ('a_b'),('axb')) v(a) WHERE a LIKE 'a_b' ORDER BY a;
-- => r: ('ab',)
SELECT regexp_replace('a1b2', '[0-9]', '', 'g') AS r;
-- => a, b, c, d, e: (5.0, 'x', 1.5, True, None)
SELECT 5 AS a, 'x' AS b, 1.5 AS c, true AS d, NULL AS e;
-- => a: (1.0,)
SELECT t.a FROM (SELECT 1 AS a) AS t;
-- => a, ra: (1.0, 1.0)
SELECT l.a, r.a AS ra FROM (VALUES (1)) l(a) JOIN (VALUES (1)) r(a) USING (a);
-- => s: (1.0,)
SELECT sum(CASE WHEN a > 1 THEN 1 ELSE 0 END) AS s FROM (VALUES (1),(2)) v(a);
-- => v: (2.0,); (2.0,)
SELECT nth_value(a, 2) OVER (ORDER BY a ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS v FROM (VALUES (1),(2)) v(a);
-- => n, r: (1.0, 1.0); (2.0, 2.0)
SELECT ntile(2) OVER (ORDER BY a) AS n, rank() OVER (ORDER BY a) AS r FROM (VALUES (1),(2)) v(a);
-- => h, m: (12.0, 12.0)
SELECT extract(hour FROM t) AS h, date_part('minute', t) AS m FROM x;
-- => tt: (1710591130123456789,)
SELECT x.t AS tt FROM x AS x WHERE x.k = 'key';
