; The topology jar of Penstock's own topologies, as `sparse submit -u` builds it: the Java half of the msgpack serializer with the library that it uses. `penstock storm jar` makes its like without Leiningen, Java or a network.
(defproject penstock "0.1.0"
  :description "The topology jar: what `sparse submit -u` packs for a Storm cluster"
  :license {:name "Apache-2.0"}
  :min-lein-version "2.0.0"
  :source-paths []
  :java-source-paths ["src/jvm"]
  :javac-options ["--release" "11" "-Xlint:all" "-proc:none"]
  :resource-paths ["_resources"]
  :target-path "_build"
  :omit-source true
  :dependencies [[org.msgpack/msgpack-core "0.9.8"]]
  :profiles {:provided {:dependencies [[org.apache.storm/storm-client "2.8.3"]]}}
  ; Workers have Penstock installed: a second copy, without its kernels, would hide it.
  :jar-exclusions [#"^resources/(penstock|penstock\.egg-info|jvm|build)/"]
  :uberjar-exclusions [#"^META-INF/maven/"])
